"""The documentation names what there is: verbs, exit codes, reasons; its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hpc_batch.cli import arguments, exit_codes
from hpc_batch.template import directives, filters, parameters

CHECKOUT = Path(__file__).resolve().parents[2]
PAGES = [CHECKOUT / "README.md", CHECKOUT / "NEWS.md", *sorted((CHECKOUT / "docs").rglob("*.md"))]


def page(name: str) -> str:
    """Return the text of a page."""
    return (CHECKOUT / name).read_text()


def test_the_commands_page_lists_every_verb_and_no_other(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        arguments.parse(["--help"])
    help_text = capsys.readouterr().out.partition("\nverbs:")[2]
    verbs = re.findall(r"^    ([a-z]+) ", help_text, re.MULTILINE)
    text = page("docs/reference/commands.md").partition("### For users")[2]
    listed = re.findall(r"^\| `([a-z]+)", text.partition("## Exit codes")[0], re.MULTILINE)
    assert sorted(listed) == sorted(verbs)


@pytest.mark.parametrize("name", ["README.md", "docs/reference/commands.md"])
def test_the_exit_codes_are_documented(name: str) -> None:
    text = page(name).partition("## Exit codes")[2].partition("\n## ")[0]
    shell = {exit_codes.INTERRUPTED, exit_codes.BROKEN_PIPE}
    codes = {v for k, v in vars(exit_codes).items() if k.isupper() and isinstance(v, int)} - shell
    stated = re.findall(r"(?:\| |· |\n\n)(\d+) ", " " + text)
    assert {int(code) for code in stated} == codes


def test_readme_and_the_job_file_page_name_the_same_reasons() -> None:
    listed = re.findall(r"^\| `(\w+)` \| (?:ok|error) \|", page("docs/reference/job-file.md"), re.M)
    (row,) = re.findall(r"^\| `thing.job.finished` \|.*reason: (.*) \|$", page("README.md"), re.M)
    assert sorted(listed) == sorted(re.findall(r"`(\w+)`", row))


def test_the_template_page_lists_every_filter_directive_and_type() -> None:
    text = page("docs/reference/template.md")
    rows = text.partition("| filter |")[2].partition("\n\n")[0]
    cells = "".join(re.findall(r"^\|([^|]*)\|", rows, re.MULTILINE))
    assert set(re.findall(r"`([a-z]+)(?:\(|`)", cells)) == set(filters.FILTERS)
    lines = text.partition("## `#HPC` lines")[2]
    (told,) = directives.read("#HPC --?\n", "sample")[1]
    assert set(re.findall(r"`--([a-z-]+)[`= ]", lines)) == set(
        re.findall(r"--([a-z-]+)", str(told))
    )
    assert set(parameters.TYPES) <= set(re.findall(r"`(\w+)`", lines))


@pytest.mark.parametrize("path", PAGES, ids=[str(p.relative_to(CHECKOUT)) for p in PAGES])
def test_the_links_of_a_page_lead_somewhere(path: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text())
    lost = [t for t in targets if "://" not in t and not (path.parent / t).exists()]
    assert not lost
