"""The job file: what is taken from it, and every way in which it can be wrong."""

from __future__ import annotations

import json
import os
import string
import time
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hpc_batch import jobfile
from hpc_batch.errors import JobFileError

CONTRACT = b"""\
script: my_container            # a template's name
args:                           # optional
    level: 6
input_map:
    input: /tmp/foo.mp3
output_map:
    json_output: /tmp/foo.json
    txt_output: /tmp/foo.txt
"""


def refused(data: bytes | str, reserved: set[str] | None = None) -> list[str]:
    """Return the problems of a job file, each with its line in front."""
    encoded = data.encode() if isinstance(data, str) else data
    with pytest.raises(JobFileError) as caught:
        jobfile.parse(encoded, reserved or set())
    return [str(problem) for problem in caught.value.problems]


def argument(text: str) -> jobfile.parsing.Value:
    """Return what the value `text` of an argument is read as."""
    return jobfile.parse(f"script: s\nargs:\n  a: {text}\n".encode()).args["a"]


# ---- what is taken ---------------------------------------------------------------------------


def test_the_example_of_the_contract() -> None:
    found = jobfile.parse(CONTRACT)
    assert found.script == "my_container"
    assert found.args == {"level": "6"}
    assert found.input_map == {"input": "/tmp/foo.mp3"}
    assert found.output_map == {"json_output": "/tmp/foo.json", "txt_output": "/tmp/foo.txt"}
    assert found.extra == {}


@pytest.mark.parametrize(
    "text",
    [
        *["010", "no", "1e3", "12:30:00", "0o17", "0x1F", "y", "~", "null", "1_000", "+.inf", "="],
        *["2026-13-45", "9" * 5000, "-1", "3.10", "it's", "a b  c", "é", "<<", "a:b", "-x"],
    ],
)
def test_scalars_are_text_as_written(text: str) -> None:
    assert argument(text) == text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("''", ""),
        ('""', ""),
        ("'it''s'", "it's"),
        (r'"tab\t nl\n nul-free \x41 \u00e9"', "tab\t nl\n nul-free A é"),
        ("|\n    one\n      two\n", "one\n  two\n"),
        (">-\n    one\n    two\n", "one two"),
        ("one\n    two", "one two"),
        ("[a, 'b c', 010]", ["a", "b c", "010"]),
        ("[]", []),
        ("\n  - x\n  - -y\n", ["x", "-y"]),
        (r'"\ud83d\ude00"', "\U0001f600"),
        (r'"/caf\udce9"', "/caf\udce9"),
        (r'"\udcc3\udca9"', "é"),
    ],
)
def test_quotes_blocks_and_lists_have_their_meaning(text: str, value: Any) -> None:
    assert argument(text) == value


def test_a_path_that_is_not_utf_8_is_written_byte_by_byte() -> None:
    found = jobfile.parse(rb'{"script": "s", "input_map": {"i": "/tmp/caf\udce9.mp3"}}')
    assert os.fsencode(found.input_map["i"]) == b"/tmp/caf\xe9.mp3"


def test_json_is_a_job_file_too() -> None:
    job = {"script": "s", "args": {"a": "\U0001f600 \x7f\t"}, "input_map": {"i": "/x"}}
    found = jobfile.parse(json.dumps(job, indent=2).encode())
    assert (found.script, found.args, found.input_map) == ("s", job["args"], {"i": "/x"})


def test_the_sections_are_optional_and_may_be_empty() -> None:
    for text in ("script: s", "script: s\nargs:\ninput_map: {}\noutput_map:\n"):
        found = jobfile.parse(text.encode())
        assert (found.args, found.input_map, found.output_map) == ({}, {}, {})


def test_keys_of_ones_own_are_carried_through() -> None:
    found = jobfile.parse(b"script: s\nx-note: {by: me, n: [1, ~], empty: }\nx-2: 010\n")
    assert found.extra == {"x-note": {"by": "me", "n": ["1", "~"], "empty": ""}, "x-2": "010"}


def test_a_renamed_answer_is_a_job_file_again() -> None:
    node = {"status": "error", "message": "m", "rc": None, "stdout": "a\nb\n", "id": "1-2"}
    answer = jobfile.answer_text(jobfile.echo(CONTRACT), node)
    again = jobfile.parse(answer)
    assert (again.script, again.args) == ("my_container", {"level": "6"})
    assert again.output_map == jobfile.parse(CONTRACT).output_map
    assert jobfile.parse(b"script: s\nhpc: {state: staged}\njob: [anything]\n").script == "s"


def test_a_byte_order_mark_windows_lines_markers_and_directives_do_no_harm() -> None:
    for data in (
        b"\xef\xbb\xbfscript: s\n",
        b"script: s\r\n",
        b"---\nscript: s\n...\n",
        b"%YAML 1.2\n---\nscript: s\n",
    ):
        assert jobfile.parse(data).script == "s"


def test_a_key_may_be_the_name_of_a_section() -> None:
    assert jobfile.parse(b"script: s\nargs: {script: x, args: y}").args["script"] == "x"


# ---- what is refused -------------------------------------------------------------------------


def test_all_problems_are_reported_at_once_with_their_lines() -> None:
    text = """\
scirpt: s
args:
    1a: x
    a-b: x
    nothing:
    deep: {x: y}
    list: [a, [b]]
    workspace: /w
input_map:
    i: relative.mp3
    j: /a/same
    k: [/x]
output_map:
    i: /b/i
    o: /a/./same
    p: /b//p
    q: /b/x/../p
    r:
"""
    assert refused(text, {"workspace", "scripts"}) == [
        "the file has no 'script: NAME', the template to run",
        "line 1: unknown key 'scirpt'; did you mean 'script'?",
        "line 3: args: the key '1a' must hold only letters, digits and '_', and not begin with a "
        "digit",
        "line 4: args: the key 'a-b' must hold only letters, digits and '_', and not begin with a "
        "digit",
        "line 5: args: nothing has no value; write '' for an empty text",
        "line 6: args: deep must be a text or a list of texts",
        "line 7: args: list: an item of the list must be a text",
        "line 8: args: the site uses the name workspace; choose another",
        "line 10: input_map: i = 'relative.mp3' must be an absolute path",
        "line 12: input_map: k must be one absolute path",
        "line 14: output_map: the key i is also in input_map; a template could not tell them apart",
        "line 15: output_map: o would overwrite the input 'j'",
        "line 17: output_map: q goes to the same path as 'p'",
        "line 18: output_map: r has no value; it is an absolute path",
    ]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "the file is empty"),
        (b"# nothing\n", "the file is empty"),
        (b"---\n...\n", "one text"),
        (b"- script: s\n", "the file is a list; a job file is a mapping"),
        (b"my_container\n", "the file is one text; a job file is a mapping"),
        (b"script: s\nargs: {a: 1\n", "line 3: the file is not YAML: while parsing a flow mapping"),
        (b"script: s\n\tb: c\n", "line 2: the file is not YAML"),
        (b"script: 'open\n", "the file is not YAML: while scanning a quoted scalar"),
        (b"script: s\n---\nscript: t\n", "line 2: the file holds several documents"),
        (b"script: s\nscript: t\n", "line 2: the key 'script' stands there twice, first in line 1"),
        (b"script: s\nargs: {a: 1, a: 2}", "line 2: the key 'a' stands there twice"),
        (b"script: s\nx-y: {n: {'a': 1, a: 2}}", "line 2: the key 'a' stands there twice"),
        (b"script: s\n? [a]\n: b\n", "line 2: a key is one text, not a list or a mapping"),
        (b"script: s\n? {a: b}\n: b\n", "line 2: a key is one text"),
        (b"script: s\n? \n: b\n", "line 2: a key is empty"),
        (b"script: &a s\n", "line 1: there is the anchor &a"),
        (b"script: s\nx-a: &a {b: c}\nargs: *a\n", "line 3: there is the alias *a"),
        (b"script: s\nargs:\n  <<: {a: b}\n", "line 3: the merge key '<<'"),
        (b"script: !!python/object/apply:os.system [id]", "tag:yaml.org,2002:python/object/apply"),
        (b"script: !!binary aGk=", "there is the tag 'tag:yaml.org,2002:binary'"),
        (b"script: s\nargs: !!set {a}\n", "line 2: there is the tag"),
        (b"script: !local s", "there is the tag '!local'"),
        (b"script: ! s", "there is the tag '!'"),
        (b"script: [s]", "line 1: script must be one text"),
        (b"script: {s: t}", "line 1: script must be one text"),
        (b"script:\n", "line 1: script has no value"),
        (b"script: ''\n", "line 1: script has no value"),
        (b"script: s\nargs: [a]\n", "line 2: args must be a mapping of 'key: value' lines"),
        (b"script: s\nargs: ''\n", "line 2: args must be a mapping"),
        (b"script: s\ninput_map: /tmp/x\n", "line 2: input_map must be a mapping"),
        (
            b"script: s\nhpc_env: {a: b}\n",
            "line 2: unknown key 'hpc_env'; your own keys begin with",
        ),
        (b"script: s\nx-: b\n", "line 2: unknown key 'x-'"),
        (b"script: s\ninputmap: {a: /b}\n", "did you mean 'input_map'?"),
        (b"script: s\nArgs: {a: b}\n", "did you mean 'args'?"),
        (b'script: s\nargs: {a: "x\\0y"}\n', "line 2: args: a holds a NUL"),
        (b'script: s\nargs: {a: "\\ud800"}\n', "line 2: args: a holds a NUL or half a character"),
        (b'script: s\ninput_map: {a: "/x\\0y"}\n', "line 2: input_map: a holds a NUL"),
        (b'script: "s\\0"\n', "line 1: script holds a NUL"),
        (b"script: s\nargs: {a: \x00}\n", "line 2: the file holds a NUL (byte 20)"),
        (b"script: s\nargs: {a: \xe9}\n", "line 2: the file is not UTF-8: byte 20 is 0xe9"),
        ("script: s".encode("utf-16"), "line 1: the file"),
        (b"script: s\nargs: {a: \x1b[0m}\n", "line 2: U+001B cannot stand there as it is"),
        (b'script: s\nargs: {a: "\\UFFFFFFFF"}\n', "a number or an escape is out of range"),
        (b"%YAML 1." + b"1" * 5000 + b"\n---\nscript: s\n", "a number or an escape is out of"),
        (b"script: s\nargs: {a: [[[[[[[x]]]]]]]}", "line 2: the file is nested deeper than 8"),
    ],
)
def test_a_wrong_file_is_refused_in_words(data: bytes, words: str) -> None:
    assert any(words in problem for problem in refused(data)), refused(data)


def nested_bomb(levels: int) -> bytes:
    """Return the billion laughs."""
    lines = ["script: s", "a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join(lines).encode()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"script: s\nargs: {a: " + b"x" * (2 << 20) + b"}", "is larger than 1048576 bytes"),
        (nested_bomb(30), "there is the alias *a0"),
        (b"&a [*a]", "there is the alias *a"),
        (b"[" * 5000, "is nested deeper than 8 levels"),
        (b"{" * 5000, "is nested deeper than 8 levels"),
        (b"[" * 5000 + b"]" * 5000, "is nested deeper than 8 levels"),
        (b"- " * 5000, "is nested deeper than 8 levels"),
        (b"? " * 5000, "is nested deeper than 8 levels"),
        (b"script: s\nargs: {a: [" + b"x," * 20_000 + b"]}", "holds more than 10000 values"),
        (b"".join(b"k%d: v\n" % n for n in range(20_000)), "holds more than 10000 values"),
        (b"".join(b"k%d: v\n" % n for n in range(4000)), "unknown key 'k0'"),
    ],
    ids=["2MiB", "bomb", "loop", "[", "{", "[]", "-", "?", "items", "keys", "unknown"],
)
def test_nasty_files_are_refused_before_they_cost_anything(data: bytes, words: str) -> None:
    start = time.process_time()
    problems = refused(data)
    assert time.process_time() - start < 1.0
    assert any(words in problem for problem in problems)
    assert len(problems) <= 51


def test_of_very_many_problems_the_first_are_told_and_the_rest_counted() -> None:
    problems = refused("script: s\n" + "".join(f"k{n}: v\n" for n in range(60)))
    assert problems[0].startswith("line 2: unknown key 'k0'")
    assert len(problems) == 51
    assert problems[-1] == "and 10 more problems"


def test_a_key_that_templates_get_from_the_site_cannot_be_shadowed() -> None:
    text = "script: s\nargs: {containers: x}\ninput_map: {scripts: /x}\n"
    assert jobfile.parse(text.encode()).args == {"containers": "x"}
    assert len(refused(text, {"containers", "scripts", "workspace"})) == 2


# ---- names of files --------------------------------------------------------------------------


def names(inputs: dict[str, str], outputs: dict[str, str], layout: str) -> list[str]:
    """Return the problems of base names."""
    job = {"script": "s", "input_map": inputs, "output_map": outputs}
    found = jobfile.parse(jobfile.dump_job(job))
    return [str(problem) for problem in jobfile.check_names(found, layout)]


@pytest.mark.parametrize("layout", ["flat", "split"])
def test_two_inputs_or_two_outputs_with_one_base_name_are_refused(layout: str) -> None:
    (problem,) = names({"a": "/x/n", "b": "/y/n"}, {}, layout)
    assert problem == "line 4: input_map: b has the same base name as input_map: a: 'n'; rename one"
    assert len(names({}, {"a": "/x/n", "b": "/y/n"}, layout)) == 1


def test_an_input_and_an_output_may_share_a_base_name_only_in_folders_of_their_own() -> None:
    assert len(names({"a": "/x/n"}, {"b": "/y/n"}, "flat")) == 1
    assert names({"a": "/x/n"}, {"b": "/y/n"}, "split") == []


@pytest.mark.parametrize("layout", ["flat", "split"])
@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/x/input", "the base name 'input' is reserved"),
        ("/x/output", "the base name 'output' is reserved"),
        ("/x/", "'/x/' names a folder, not a file"),
        ("/x/.", "names a folder"),
        ("/x/..", "names a folder"),
        ("/", "names a folder"),
        ("/x/" + "é" * 128, "the base name has 256 bytes; file systems take 255"),
    ],
)
def test_base_names_that_cannot_be(path: str, words: str, layout: str) -> None:
    (problem,) = names({"a": path}, {}, layout)
    assert problem.startswith("line 3: input_map: a: ")
    assert words in problem
    assert len(names({}, {"a": path}, layout)) == 1


@pytest.mark.parametrize(
    "name",
    ["a b", 'it\'s "x"', "a\nb", "-rf", "$(id)", "*", "é", "\udce9", "x" * 255, "input.mp3", "..."],
)
def test_any_other_base_name_will_do(name: str) -> None:
    assert names({"a": f"/x/{name}"}, {}, "flat") == []


# ---- settled ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (CONTRACT, "mapping"),
        (CONTRACT + b"...\n", "end"),
        (CONTRACT + b"...", "end"),
        (CONTRACT + b"... \r\n\n", "end"),
        (CONTRACT.replace(b"\n", b"\r\n") + b"...\r\n", "end"),
        (b"script: s...\n", "mapping"),
        (b"script: s\n...\n# more\n", "mapping"),
        (b"script: s\nscript: t\n", "mapping"),
        (b"script: s\nunknown: t\n...\n", "end"),
        (b"...", "no"),
        (b"", "no"),
        (b"script", "no"),
        (b"script:", "no"),
        (b"args: {a: b}\n...\n", "no"),
        (b"- script\n...\n", "no"),
        (b"script: s\nargs: {a:", "no"),
        (b"script: s\xc3", "no"),
        (b"script: s\n---\nscript: s\n...\n", "no"),
    ],
)
def test_a_drop_may_be_complete_or_not(data: bytes, answer: str) -> None:
    assert jobfile.settled(data) == answer


@given(st.integers(0, len(CONTRACT) + 4))
def test_only_the_whole_file_has_the_end_mark(length: int) -> None:
    whole = CONTRACT + b"...\n"
    ended = jobfile.settled(whole[:length]) == "end"
    assert ended == (length >= len(whole) - 1)


# ---- what our client writes ------------------------------------------------------------------

KEY = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)
TEXT = st.one_of(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40),
    st.text("\n\t \r\x85\u2028\ufeff#:-'\"\\{}[],&*!|>%@`<=ab\x1b", max_size=30),
    st.text("0123456789+-.:_eExob", max_size=20),
    st.sampled_from(["no", "~", "null", "", " ", "=", "<<", "...", "---", "2026-13-45", "1e3"]),
    st.binary(max_size=20).map(lambda raw: os.fsdecode(raw.replace(b"\0", b""))),
)
PATH = TEXT.map(lambda text: "/" + text)
ARGS = st.dictionaries(KEY, st.one_of(TEXT, st.lists(TEXT, max_size=4)), max_size=4)


@given(TEXT.filter(bool), ARGS, st.dictionaries(KEY, PATH, max_size=3))
@settings(max_examples=300, deadline=None)
def test_what_the_client_writes_comes_back_exactly(
    script: str, args: dict[str, Any], paths: dict[str, str]
) -> None:
    inputs = {key: path for key, path in paths.items() if key not in args}
    job = {"script": script, "args": args, "input_map": inputs, "x-more": {"note": [script]}}
    data = jobfile.dump_job(job)
    found = jobfile.parse(data)
    assert (found.script, found.args, found.input_map) == (script, args, inputs)
    assert found.extra == {"x-more": {"note": [script]}}
    assert jobfile.settled(data) == "end"


def test_numbers_and_paths_are_written_as_people_would() -> None:
    job = {"script": "s", "args": {"a": 6, "b": 1e-05, "c": True, "d": float("inf"), "e": []}}
    data = jobfile.dump_job(job)
    assert b"    a: 6\n    b: 1e-05\n    c: true\n" in data
    assert jobfile.parse(data).args == {"a": "6", "b": "1e-05", "c": "true", "d": "inf", "e": []}


def test_texts_that_look_like_numbers_stay_texts_for_every_reader() -> None:
    job = {"script": "s", "args": {"a": "010", "b": "no", "c": "1e3", "d": "12:30:00", "e": ""}}
    assert yaml.safe_load(jobfile.dump_job(job)) == job


def test_what_a_job_file_cannot_hold_is_refused_before_it_is_dropped() -> None:
    with pytest.raises(JobFileError) as caught:
        jobfile.dump_job({"script": None, "args": {"a": [None], "b": {1}, "c": object()}})
    assert [str(p) for p in caught.value.problems] == [
        "script has no value; give '' for an empty text",
        "args: a has no value; give '' for an empty text",
        "args: b is a set; a job file holds texts and numbers",
        "args: c is a object; a job file holds texts and numbers",
    ]


# ---- anything at all -------------------------------------------------------------------------

YAML_SOUP = st.lists(
    st.sampled_from(
        [
            *["script: s\n", "args:\n", "  a: b\n", "input_map: {i: /x}\n", "- ", "? ", ": ", "\n"],
            *[
                "[",
                "]",
                "{",
                "}",
                ",",
                "'",
                '"',
                "|\n",
                ">-\n",
                "&a ",
                "*a",
                "!!int ",
                "!x ",
                "%T\n",
            ],
            *[
                "---\n",
                "...\n",
                "#",
                " ",
                "\t",
                "\\x",
                "\\U00110000",
                "\ufeff",
                "\x85",
                "<<: ",
                "~",
            ],
            *["%YAML 1.1\n", "%TAG ! x\n", "x-a: ", "job: ", "\r", "\u2028", "é", "\ud83d"],
        ]
    ),
    max_size=25,
).map(lambda parts: "".join(parts).encode("utf-8", "surrogatepass"))


@given(st.one_of(st.binary(max_size=200), YAML_SOUP))
@example(b"\xff\xfe")
@example(b"!<tag:%")
@settings(max_examples=1000, deadline=None)
def test_whatever_the_bytes_are_the_answer_is_a_description_or_problems(data: bytes) -> None:
    lines = len(data.decode("utf-8", "replace").splitlines()) + 1
    try:
        found = jobfile.parse(data)
    except JobFileError as error:
        assert error.problems
        assert all(p.line is None or 1 <= p.line <= lines for p in error.problems)
    else:
        assert found.script
        jobfile.check_names(found, "flat")
        assert jobfile.settled(data) in ("mapping", "end")
    jobfile.settled(data)
    jobfile.echo(data)


@given(st.dictionaries(st.sampled_from([*string.ascii_letters]), TEXT, min_size=1))
@settings(deadline=None)
def test_what_pyyaml_writes_is_read_as_its_own_reader_reads_it(args: dict[str, str]) -> None:
    data = yaml.safe_dump({"script": "s", "args": args}, allow_unicode=False).encode()
    expected = {
        key: text.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
        for key, text in args.items()
    }
    assert jobfile.parse(data).args == expected
