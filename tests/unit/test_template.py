"""Templates: loading, names, rendering, and every error with its line."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from shell_lab import shell_lab

from hpc_batch import template
from hpc_batch.errors import TemplateError
from hpc_batch.template import Finding, Template
from hpc_batch.template.syntax import syntax_check

SITE = {"workspace": "/w/jobs/j/hpcb0/work", "scripts": "/s", "containers": "/c"}

SPEECH = """#!/bin/bash
module load singularity
exec singularity run --nv \\
        --bind <<workspace>>:/mnt \\
        <<containers>>/speech.sif \\
        /mnt/input/<<input>> \\
        /mnt/output/<<segments>>

"""
WORDS = """#!/bin/bash
# make the folders
mkdir <<workspace>>/data
unset PERL5LIB
singularity run --nv --bind <<workspace>>:/files <<containers>>/words.sif -i /files/input
RC=$?

# the program's names aren't ours, so there's a move
base=$(basename <<input>> | sed -e "s/.\\(mp3\\|wav\\)$//")
echo $base
cp <<workspace>>/output_temp/$base.txt <<workspace>>/output/<<txt_output>>

exit $RC"""
"""Two templates in the manner of the original project."""


def made(text: str) -> Template:
    return template.parse("t", text.encode("utf-8", "surrogateescape"))


def errors(text: str, values: dict[str, object] | None = None, files: tuple[str, ...] = ()) -> str:
    """Return every error of parsing and rendering, as one text."""
    with pytest.raises(TemplateError) as caught:
        template.render(made(text), values or {}, SITE, files=files)  # type: ignore[arg-type]
    return "\n".join(str(problem) for problem in caught.value.problems)


# ---- loading -----------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "my_container.template").write_text("#!/bin/bash\necho <<input>>\n")
    (tmp_path / "kaldi.template").write_text(WORDS)
    (tmp_path / "not a name.template").write_text("")
    (tmp_path / "readme.txt").write_text("")
    return tmp_path


def test_a_script_is_the_name_of_a_file_in_the_folder(folder: Path) -> None:
    loaded = template.load(folder, "my_container")
    assert (loaded.name, loaded.shell) == ("my_container", "bash")
    assert template.scripts(folder) == ["kaldi", "my_container"]


def test_a_script_may_be_a_link(folder: Path) -> None:
    (folder / "other.template").symlink_to("kaldi.template")
    assert template.load(folder, "other").text == WORDS.encode()


def test_a_template_is_read_again_when_it_has_changed(folder: Path) -> None:
    first = template.load(folder, "kaldi")
    assert template.load(folder, "kaldi") is first
    (folder / "kaldi.template").write_text("echo\n")
    assert template.load(folder, "kaldi").text == b"echo\n"


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("my_contaner", "there is no template 'my_contaner'; did you mean my_container?"),
        ("zzz", "there is no template 'zzz'; known are kaldi, my_container"),
        ("../../etc/passwd", "'../../etc/passwd' is not the name of a template"),
        ("not a name", "is not the name of a template"),
        ("", "is not the name of a template"),
        ("x" * 65, "is not the name of a template"),
        (".hidden", "is not the name of a template"),
        ("kaldi\n", "is not the name of a template"),
    ],
)
def test_a_script_that_is_no_template_is_refused(folder: Path, script: str, said: str) -> None:
    with pytest.raises(TemplateError) as caught:
        template.load(folder, script)
    assert said in str(caught.value)


def test_a_missing_folder_and_unreadable_templates_are_errors_of_their_own(folder: Path) -> None:
    with pytest.raises(TemplateError, match="there are none in"):
        template.load(folder / "nowhere", "kaldi")
    (folder / "sub.template").mkdir()
    with pytest.raises(TemplateError, match="cannot be read"):
        template.load(folder, "sub")
    (folder / "large.template").write_bytes(b"#" * (template.TEMPLATE_BYTES + 1))
    with pytest.raises(TemplateError, match="cannot be read"):
        template.load(folder, "large")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("#!/bin/sh\necho a\r\n", "line 2: a carriage return"),
        ("echo \0", "line 1: a NUL"),
        ("\ufeff#!/bin/sh\n", "line 1: a byte order mark"),
        ("a\nb\necho $HPC_V_x\n", "line 3: HPC_V_"),
        ("HPC_NL=a\n", "line 1: HPC_NL"),
    ],
)
def test_what_no_template_may_hold_is_refused_with_its_line(text: str, said: str) -> None:
    with pytest.raises(TemplateError) as caught:
        made(text)
    assert f"t.template, {said}" in str(caught.value)


@pytest.mark.parametrize(
    ("first", "shell"),
    [
        ("#!/bin/bash", "bash"),
        ("#! /usr/bin/bash -e", "bash"),
        ("#!/usr/bin/env bash", "bash"),
        ("#!/usr/bin/env -S A=b bash -eu", "bash"),
        ("#!/bin/sh", "sh"),
        ("#!/bin/dash", "sh"),
        ("echo", "sh"),
        ("#!/bin/zsh", None),
        ("#!/usr/bin/env python3", None),
        ("#!", None),
    ],
)
def test_the_first_line_names_the_interpreter(first: str, shell: str | None) -> None:
    assert made(first + "\n").shell == shell


# ---- names -------------------------------------------------------------------------------------


def test_templates_of_the_original_project_work_unchanged() -> None:
    values = {"input": "it's $(here).mp3", "segments": "s.csv", "txt_output": "a b.txt"}
    for text in (SPEECH, WORDS):
        found = made(text)
        assert found.directives.layout == "split"
        assert template.check(found, values, SITE) == []
        assert [f for f in template.lint(found) if f.severity == "error"] == []
        script = template.render(found, values, SITE)
        assert subprocess.run(["bash", "-n"], input=script, check=False).returncode == 0
    assert script == (
        b"#!/bin/bash\n# make the folders\n"
        b"HPC_V_workspace='/w/jobs/j/hpcb0/work'\nHPC_V_containers='/c'\n"
        b"HPC_V_input='it'\\''s $(here).mp3'\nHPC_V_txt_output='a b.txt'\n"
        b'mkdir "${HPC_V_workspace}"/data\nunset PERL5LIB\n'
        b'singularity run --nv --bind "${HPC_V_workspace}":/files '
        b'"${HPC_V_containers}"/words.sif -i /files/input\nRC=$?\n\n'
        b"# the program's names aren't ours, so there's a move\n"
        b'base=$(basename "${HPC_V_input}" | sed -e "s/.\\(mp3\\|wav\\)$//")\necho $base\n'
        b'cp "${HPC_V_workspace}"/output_temp/$base.txt '
        b'"${HPC_V_workspace}"/output/"${HPC_V_txt_output}"\n\nexit $RC'
    )


def test_an_unknown_name_is_an_error_with_the_nearest_one() -> None:
    said = errors("probe <<inptu>>\nprobe '«levle»' <<zzz>>\n", {"input": "a", "level": "6"})
    assert "t.template, line 1: <<inptu>>: there is no inptu" in said
    assert "did you mean input?" in said
    assert "line 2: «levle»: there is no levle" in said
    assert "<<zzz>>: there is no zzz in this job or in [hpc_env]; known are containers, " in said


def test_what_is_no_placeholder_stays_as_it_is() -> None:
    text = (
        "#!/bin/bash\ncat <<EOF>>log\na\nEOF\ncat <<EOF|sort>>log\na\nEOF\n"
        "echo ${#a[@]} {{ x }} {% y %} {# z #} $((1<<2)) $((1<<b>>c)) # <<nope>> it's\n"
        "cat <<< a >> b; cat <<<EOF>>log\ntr <<-E\n\t<< x >> << x>>\n\tE\n"
    )
    assert template.render(made(text), {}, SITE) == text.encode()


def test_a_name_of_the_job_that_reads_as_a_delimiter_too_is_refused() -> None:
    said = errors("cat <<EOF>>log\na\nEOF\n", {"EOF": "a"})
    assert "line 1: <<EOF>>: a later line 'EOF' closes it like a here-document" in said


def test_all_errors_are_told_at_once_by_line() -> None:
    said = errors("probe <<a>>\n<<x>> b\nprobe <<x|upr>> $((<<x>>))\n", {"x": "1"})
    assert [line.split(":")[0] for line in said.splitlines()] == [
        "t.template, line 1",
        "t.template, line 2",
        "t.template, line 3",
        "t.template, line 3",
    ]


def test_an_unreadable_template_still_names_its_unknown_names() -> None:
    said = errors("probe <<inptu>> 'a\n", {"input": "a"})
    assert "line 1: <<inptu>>" in said and "line 1: this single quote (') is never closed" in said


def test_a_job_cannot_set_what_the_site_sets() -> None:
    assert "workspace is set by the site" in errors("echo <<workspace>>\n", {"workspace": "/"})


# ---- rendering ---------------------------------------------------------------------------------


def test_values_stand_behind_the_leading_comments_in_the_order_of_their_use() -> None:
    text = "#!/bin/bash\n#SBATCH --time=1\n\n  # more\n#HPC --gpus=1\nprobe <<b>> <<a>> <<b>>\n"
    script = template.render(made(text), {"a": "1", "b": "it's", "c": "unused"}, SITE)
    head, body = text[: text.index("probe")].encode(), b'probe "${HPC_V_b}" "${HPC_V_a}" '
    assert script == head + b"HPC_V_b='it'\\''s'\nHPC_V_a='1'\n" + body + b'"${HPC_V_b}"\n'


@pytest.mark.parametrize("text", ["", "\n", "#!/bin/sh", "# only <<x>> comments\n", "#a\n\n"])
def test_a_template_without_commands_stays_as_it_is(text: str) -> None:
    assert template.render(made(text), {"x": "1"}, SITE) == text.encode()


def test_a_template_without_a_final_line_end_works() -> None:
    assert (
        template.render(made("probe <<x>>"), {"x": "1"}, {}) == b"HPC_V_x='1'\nprobe \"${HPC_V_x}\""
    )


def test_bytes_of_the_template_that_are_no_utf8_stay() -> None:
    found = template.parse("t", b"#!/bin/sh\nprobe \xff'\xe9' <<x>>\n")
    assert b"probe \xff'\xe9' \"${HPC_V_x}\"\n" in template.render(found, {"x": "1"}, {})


def test_the_same_script_comes_from_the_same_values() -> None:
    found = made(SPEECH)
    values = {"input": "a", "segments": "b"}
    assert template.render(found, values, SITE) == template.render(found, values, SITE)


def test_a_directive_of_a_batch_system_takes_plain_values_only() -> None:
    text = "#!/bin/bash\n#SBATCH --job-name=<<x>>\nprobe\n"
    assert template.render(made(text), {"x": "a-1"}, SITE) == text.replace("<<x>>", "a-1").encode()
    for value in ("a b", "a\nb", "", "$x"):
        assert "cannot stand in a batch system's directive" in errors(text, {"x": value})


def test_a_value_with_a_nul_or_half_a_character_is_refused() -> None:
    said = errors("probe <<x>> <<y>>\n", {"x": "a\0b", "y": ["a", "\ud800"]})
    assert "x: the value holds a NUL" in said and "is not valid Unicode" in said
    assert "x: the value holds a NUL" in errors("probe <<x>>\n", {"x": b"a\0b"})


def test_a_value_longer_than_an_argument_may_be_is_refused_early() -> None:
    text = "probe a\nprobe <<x>>\n"
    assert "line 2: <<x>>: the value has 131072 bytes" in errors(text, {"x": "x" * 131072})
    assert "the value has 131072 bytes" in errors(text, {"x": "é" * 65536})
    template.render(made(text), {"x": "x" * 131071}, SITE)
    template.render(made("cat <<EOF\n<<x>>\nEOF\n"), {"x": "x" * 200000}, SITE)


def test_a_list_stands_only_where_words_may_stand() -> None:
    text = '#!/bin/bash\nprobe a<<l>>\nprobe "<<l>>"\nv=<<l>>\ncat <<EOF\n<<l>>\nEOF\n'
    said = errors(text + "probe <<l>>\n", {"l": ["a", "b"]})
    assert said.count("it is a list; write it as a word of its own, or <<l|join>>") == 4
    script = template.render(made("#!/bin/bash\nprobe <<l>>\n"), {"l": ["a b", "c\n"]}, {})
    assert b"HPC_V_l=('a b' $'c\\012')\nprobe \"${HPC_V_l[@]}\"\n" in script
    script = template.render(made("probe <<l>>\n"), {"l": ["a b", "c"]}, {})
    assert script == (b"HPC_V_1_l='a b'\nHPC_V_2_l='c'\nprobe \"${HPC_V_1_l}\" \"${HPC_V_2_l}\"\n")


def test_names_with_numbers_do_not_meet_the_elements_of_lists() -> None:
    values = {"l": ["a", "b"], "l_1": "c", "_1_l": "d", "l__upper": "e", "x": "f"}
    text = "probe <<l>> <<l_1>> <<_1_l>> <<l__upper>> <<x|upper>> <<l|upper>>\n"
    script = template.render(made(text), values, {})
    wanted = (b"a", b"b", b"c", b"d", b"e", b"F", b"A", b"B")
    assert shell_lab().run([script], "sh")[0].calls == (("probe", wanted),)


def test_different_arguments_of_a_filter_are_different_values() -> None:
    text = "probe <<x|replace('a','1')>> <<x|replace('a','2')>> <<x>>\n"
    script = template.render(made(text), {"x": "a"}, {})
    assert shell_lab().run([script], "sh")[0].calls == (("probe", (b"1", b"2", b"a")),)


def test_ten_thousand_jobs_need_one_reading_of_the_template() -> None:
    found = made(SPEECH)
    first = found.compiled({"input", "segments", *SITE}, SITE)
    for number in range(1000):
        template.render(found, {"input": f"{number}", "segments": "s", "more": "x"}, SITE)
    assert found.compiled({"input", "segments", "other", *SITE}, SITE) is first


# ---- other interpreters ------------------------------------------------------------------------


def test_a_program_in_another_language_takes_plain_values_or_json() -> None:
    text = "#!/usr/bin/env python3\n# it's\nx = <<x|json>>\ny = '<<y>>'\nz = 1<<2, <<l|json>>\n"
    values = {"x": 'it\'s "a"\né', "y": "a/b.c", "l": ["a", 'b"']}
    script = template.render(made(text), values, SITE).decode()
    names: dict[str, object] = {}
    exec(script, names)
    assert (names["x"], names["y"], names["z"]) == (values["x"], "a/b.c", (4, ["a", 'b"']))


def test_other_values_in_another_language_are_refused_with_a_way_out() -> None:
    text = "#!/usr/bin/python3\nx = '<<x>>'\ny = <<l>>\n"
    said = errors(text, {"x": "a'", "l": ["a"]})
    assert 'line 2: <<x>>: the value "a\'" could be read as program text' in said
    assert "<<x|json>>" in said and "line 3: <<l>>: it is a list" in said
    assert "line 2: <<nope>>: there is no nope" in errors("#!/bin/zsh\necho <<nope>>\n")


def test_the_operator_may_paste_into_another_language() -> None:
    script = template.render(made("#!/usr/bin/perl\nprint <<x|raw>>;\n"), {"x": "1 + 2"}, SITE)
    assert script == b"#!/usr/bin/perl\nprint 1 + 2;\n"


# ---- lint --------------------------------------------------------------------------------------


def test_lint_without_names_examines_the_template_alone() -> None:
    found = template.lint(made("#!/bin/bash\nprobe <<any>>\neval <<any>>\n"))
    assert [(f.line, f.severity) for f in found] == [(3, "error")]
    assert template.lint(made("#!/bin/bash\nprobe <<any>>\n"), {"other"})[0].line == 2


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("rm <<x>>", "write `--` before"),
        ("cd <<x>>", "`cd -`"),
        ("echo <<x>>", "printf"),
        ("probe {1..<<x>>}", "use seq"),
        ("probe ~<<x>>", "is not expanded"),
        ("awk -v v=<<x>> '{print v}' f", "ENVIRON"),
        ("probe >&<<x>>", "descriptor"),
        ("cat > run.sh <<EOF\necho <<x>>\nEOF", "generated script"),
    ],
)
def test_advice_is_given_for_what_is_allowed_but_risky(line: str, said: str) -> None:
    found = template.lint(made(f"#!/bin/bash\n{line}\n"))
    assert [f.severity for f in found] == ["advice"] and said in found[0].text


def test_what_the_operator_sets_needs_no_advice() -> None:
    text = "#!/bin/bash\nmkdir <<workspace>>/a\ncd <<workspace>>\nrm -- <<x>>\n"
    assert template.lint(made(text + "cat > a.sh <<E\n<<x|sh>>\nE\n")) == []


# ---- the interpreter's own opinion -------------------------------------------------------------


@pytest.mark.parametrize("shell", ["bash", "sh"])
def test_the_shells_own_check_names_the_line(shell: str) -> None:
    text = f"#!/bin/{shell}\n# a comment\nif true; then\n    probe <<x>>\ndone\n"
    found = syntax_check(made(text))
    assert found and found[0].severity == "error" and found[0].line == 5


@pytest.mark.parametrize("text", [SPEECH, "#!/usr/bin/python3\nif (\n", "probe <<x|raw>>\n"])
def test_the_shells_own_check_accepts_what_is_right(text: str) -> None:
    assert syntax_check(made(text)) == []


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="there is no shellcheck here")
def test_shellcheck_gives_advice() -> None:
    found = syntax_check(made("#!/bin/bash\nbase=$1\ncp <<x>> $base.txt\n"))
    assert [(f.line, f.severity) for f in found] == [(3, "advice")]
    assert "SC2086" in found[0].text


def test_a_finding_names_the_template_and_the_line() -> None:
    assert str(Finding(12, "no.", "kaldi")) == "kaldi.template, line 12: no."
    assert str(Finding(None, "no.", "kaldi")) == "kaldi.template: no."
