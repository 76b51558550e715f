"""The `#HPC` lines: defaults of a template's jobs, and its declared parameters."""

from __future__ import annotations

import pytest

from hpc_batch import template
from hpc_batch.errors import TemplateError
from hpc_batch.template import ArgType, Directives

SITE = {"workspace": "/w"}


def directives(*lines: str, body: str = "probe\n") -> Directives:
    text = "#!/bin/bash\n" + "".join(f"#HPC {line}\n" for line in lines) + body
    return template.parse("t", text.encode()).directives


def refused(*lines: str, body: str = "probe\n") -> str:
    with pytest.raises(TemplateError) as caught:
        directives(*lines, body=body)
    return str(caught.value)


def test_without_directives_everything_is_the_sites() -> None:
    assert directives() == Directives("flat", None, None, None, None, False, {})


def test_every_directive_is_read() -> None:
    found = directives(
        "--cpus=4 --gpus 1", "--memory=16G --time-limit=1h30m --layout=split --writable-inputs"
    )
    assert found == Directives("split", 5400, 4, 1, 16 << 30, True, {})


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("90s", 90), ("30m", 1800), ("8h", 28800), ("1d", 86400), ("08:00:00", 28800), ("45", 45)],
)
def test_time_limits_are_durations(text: str, wanted: int) -> None:
    assert directives(f"--time-limit={text}").time_limit == wanted


@pytest.mark.parametrize(
    ("text", "wanted"), [("512M", 512 << 20), ("32", 32 << 30), ("1TB", 1 << 40), ("8GiB", 8 << 30)]
)
def test_memory_is_a_size_in_gb_by_default(text: str, wanted: int) -> None:
    assert directives(f"--memory={text}").memory == wanted


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--cpsu=4", "--cpsu is unknown; did you mean --cpus?"),
        ("--zzz", "--zzz is unknown; known are --cpus, "),
        ("cpus=4", "#HPC: cpus is unknown"),
        ("--cpus=0", "--cpus=0 must be a whole number, at least 1"),
        ("--gpus=-1", "--gpus=-1 must be a whole number"),
        ("--gpus", "--gpus needs a value"),
        ("--gpus --cpus=1", "--gpus needs a value"),
        ("--memory=0", "must be a size"),
        ("--memory=lots", "must be a size"),
        ("--time-limit=soon", "must be a duration"),
        ("--time-limit=0s", "must be at least 1 s"),
        ("--layout=round", "must be flat or split"),
        ("--writable-inputs=yes", "takes no value"),
        ("--cpus=1 --cpus=2", "--cpus is given twice"),
        ("--arg 'level", "a quote is never closed"),
        ("--arg 1x", "must look like name:type=default"),
        ("--arg level:itn", "type 'itn' is unknown; did you mean int?"),
        ("--arg level:zzz", "types are int, number, text, name, path and choices"),
        ("--arg level:", "type '' is unknown"),
        ("--arg mode:a,,b", "a choice is empty or stands there twice"),
        ("--arg mode:a,a", "a choice is empty or stands there twice"),
        ("--arg level:int=six", "the default 'six' is not an integer"),
        ("--arg mode:a,b=c", "the default 'c' is none of a, b"),
        ("--arg x --arg x:int", "--arg x is declared twice"),
        ("--arg EOF:text", "the usual delimiter of a here-document"),
        ("--gpus=<<n>>", "takes no placeholders"),
    ],
)
def test_a_wrong_directive_is_an_error_with_its_line(line: str, said: str) -> None:
    found = refused(line)
    assert said in found and "t.template, line 2: " in found


def test_all_wrong_directives_are_told_at_once() -> None:
    found = refused("--cpsu=1", "--gpus=x --arg a:b")
    assert found.count("t.template, line") == 3


def test_a_directive_behind_the_first_command_is_an_error() -> None:
    found = refused(body="probe\n#HPC --gpus=1\n")
    assert "line 3: #HPC stands behind the first command" in found
    assert directives(body="probe # HPC is a word\n#HPCX is another\n").gpus is None


@pytest.mark.parametrize(
    ("body", "layout"),
    [
        ("run /mnt/input/<<input>>\n", "split"),
        ("run -o /mnt/output\n", "split"),
        ("run '<<workspace>>/input:/data'\n", "split"),
        ("run /mnt/<<input>> /mnt/input.txt /mnt/outputs /mnt/input-2\n", "flat"),
        ("run input/ output/\n", "flat"),
        ("# as in /mnt/input/\nrun\n", "flat"),
    ],
)
def test_the_layout_is_split_where_its_folders_are_named(body: str, layout: str) -> None:
    assert directives(body=body).layout == layout
    assert directives("--layout=flat", body=body).layout == "flat"


# ---- declared parameters -----------------------------------------------------------------------

DECLARED = (
    "#HPC --arg level:int=6 --arg language --arg mode:fast,exact=fast\n"
    "#HPC --arg rate:number=1e3 --arg 'note:text=hello  world' --arg file:name=a --arg to:path=/\n"
)


def render(values: dict[str, object], text: str = "", files: tuple[str, ...] = ()) -> str:
    body = text or "probe <<level>> <<language>> <<mode>> <<rate>> <<note>> <<file>> <<to>>\n"
    found = template.parse("t", (DECLARED + body).encode())
    return template.render(found, values, SITE, files=files).decode()  # type: ignore[arg-type]


def test_parameters_have_types_and_defaults() -> None:
    args = template.parse("t", DECLARED.encode()).directives.args
    assert args["level"] == ArgType("level", "int", (), "6")
    assert args["language"] == ArgType("language", "text", (), None)
    assert args["mode"] == ArgType("mode", "choice", ("fast", "exact"), "fast")
    assert args["note"].default == "hello  world"


def test_defaults_are_used_for_what_a_job_does_not_give() -> None:
    script = render({"language": "de", "level": "7"})
    for line in ("level='7'", "mode='fast'", "rate='1e3'", "note='hello  world'", "to='/'"):
        assert f"HPC_V_{line}\n" in script


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "the argument language is missing (a text)"),
        ({"lang": "de"}, "lang is none of the template's arguments"),
        (
            {"langauge": "de"},
            "langauge is none of the template's arguments; did you mean language?",
        ),
        ({"level": "six"}, "level: 'six' is not an integer"),
        ({"level": "010"}, "level: '010' is not written as an integer; write 10"),
        ({"level": "+1"}, "write 1"),
        ({"level": ""}, "is not an integer"),
        ({"level": "1\n"}, "is not an integer"),
        ({"level": "9223372036854775808"}, "does not fit into 64 bits"),
        ({"level": ["1", "x"]}, "level: 'x' is not an integer"),
        ({"rate": "1,5"}, "rate: '1,5' is not a decimal number"),
        ({"rate": "nan"}, "is not a decimal number"),
        ({"mode": "slow"}, "mode: 'slow' is none of fast, exact"),
        ({"file": "a/b"}, "holds a slash"),
        ({"file": ".."}, "is no name of a file"),
        ({"file": "-rf"}, "begins with a dash"),
        ({"file": ""}, "is empty"),
        ({"to": "-x"}, "begins with a dash, which programs read as an option"),
        ({"to": ""}, "to: '' is empty"),
        ({"to": "a\nb"}, "holds a control character"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused(given: dict[str, object], said: str) -> None:
    with pytest.raises(TemplateError) as caught:
        render(given)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "given",
    [
        {"level": "-9223372036854775808"},
        {"level": ["1", "2"]},
        {"rate": "-.5E+3"},
        {"mode": "exact"},
        {"file": "it's $(a) b"},
        {"to": "../a b/c"},
        {"note": ""},
        {"language": "-x\n\t"},
    ],
)
def test_a_value_of_the_right_type_passes(given: dict[str, object]) -> None:
    render({"language": "de", **given})


def test_base_names_and_the_sites_names_need_no_declaration() -> None:
    values: dict[str, object] = {"language": "de", "input": "a b.mp3"}
    script = render(values, "probe <<input>> <<workspace>>\n", files=("input",))
    assert "HPC_V_input='a b.mp3'\n" in script
    with pytest.raises(TemplateError, match="input is none of the template's arguments"):
        render(values, "probe <<input>> <<workspace>>\n")


def test_declared_integers_may_stand_in_arithmetic() -> None:
    assert "probe $((1-HPC_V_level))\n" in render({"language": "de"}, "probe $((1-<<level>>))\n")
    with pytest.raises(TemplateError, match="declare it: #HPC --arg language:int"):
        render({"language": "de"}, "probe $((1-<<language>>))\n")


def test_without_declarations_every_argument_is_accepted() -> None:
    found = template.parse("t", b"probe <<a>>\n")
    assert template.render(found, {"a": "1", "b": "2"}, SITE).endswith(b'probe "${HPC_V_a}"\n')
