"""The cron line, as text."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

from hpc_batch import crontab
from hpc_batch.errors import ConfigError

INI = Path("/srv/hpc_batch/hpc_batch.ini")
OTHER = Path("/srv/hpc_batch/hpc_batch.ini.second")
THEIRS = "MAILTO=ops@example.org\n# hpc_batch is dear to us\n0 4 * * * /usr/bin/true\n"


@pytest.mark.parametrize("before", ["", THEIRS, THEIRS.rstrip("\n")])
def test_a_block_is_added_changed_and_taken_away_again(before: str) -> None:
    once = crontab.with_block(before, INI, "* * * * * one")
    assert crontab.with_block(once, INI, "* * * * * one") == once
    assert once.startswith(before)
    assert crontab.installed(once, INI) == "* * * * * one"
    two = crontab.with_block(once, INI, "* * * * * two")
    assert (crontab.installed(two, INI), two.count("begin")) == ("* * * * * two", 1)
    assert crontab.without_block(two, INI).rstrip("\n") == before.rstrip("\n")
    assert crontab.without_block(before, INI) == before


def test_configurations_have_a_block_each() -> None:
    both = crontab.with_block(crontab.with_block(THEIRS, OTHER, "b"), INI, "a")
    assert (crontab.installed(both, INI), crontab.installed(both, OTHER)) == ("a", "b")
    assert crontab.without_block(both, INI) == crontab.with_block(THEIRS, OTHER, "b")


def test_a_block_keeps_its_place_among_other_lines() -> None:
    text = crontab.with_block(THEIRS, INI, "a") + "# after\n"
    assert crontab.with_block(text, INI, "b") == text.replace("\na\n", "\nb\n")


@pytest.mark.parametrize(
    "damage",
    [
        f"# hpc_batch begin {INI}\n* * * * * x\n",
        f"# hpc_batch end {INI}\n",
        f"# hpc_batch end {INI}\n# hpc_batch begin {INI}\n",
        f"# hpc_batch begin {INI}\n# hpc_batch begin {INI}\n# hpc_batch end {INI}\n",
    ],
)
def test_a_damaged_block_is_left_alone(damage: str) -> None:
    for act in (
        lambda: crontab.with_block(damage, INI, "a"),
        lambda: crontab.installed(damage, INI),
    ):
        with pytest.raises(ConfigError, match="damaged"):
            act()


@pytest.mark.parametrize("every", crontab.PERIODS_MIN)
def test_the_line_names_everything_absolutely(every: int) -> None:
    minutes, *stars, rest = crontab.line(INI, every).split(" ", 5)
    assert stars == ["*"] * 4
    assert re.fullmatch(r"\*|[0-9]+|[0-9]+-59/[0-9]+", minutes)
    if every not in (1, 60):
        first = int(minutes.split("-")[0])
        assert (first < every, minutes) == (True, f"{first}-59/{every}")
    words = shlex.split(rest)
    assert words[0] == sys.executable
    assert words[1].endswith("/tools/hpc_submitter")
    assert words[2:] == [str(INI)]
    assert all(word.startswith("/") for word in words)


def test_what_cron_or_a_shell_would_take_amiss_is_quoted() -> None:
    path = Path("/srv/100% ours/it's.ini")
    text = crontab.line(path, 5)
    assert not re.search(r"(?<!\\)%", text)
    assert shlex.split(text.replace(r"\%", "%").split(" ", 5)[5])[-1] == str(path)
    with pytest.raises(ConfigError):
        crontab.line(Path("/a\nb"), 1)


def test_a_line_by_hand_counts_as_one() -> None:
    assert crontab.mentioned(f"* * * * * /x/hpc_submitter {INI}\n", INI)
    assert not crontab.mentioned(f"# * * * * * /x/hpc_submitter {INI}\n", INI)
    assert crontab.mentioned(crontab.with_block("", INI, crontab.line(INI, 2)), INI)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ('echo "no crontab for me" >&2; exit 1', ""),
        ('printf "a\\nb"', "a\nb"),
        ('echo "you are not allowed" >&2; exit 1', None),
    ],
)
def test_the_crontab_is_read_or_the_reason_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, words: str | None
) -> None:
    (tmp_path / "crontab").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "crontab").chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    if words is None:
        with pytest.raises(ConfigError, match="not allowed"):
            crontab.read()
        with pytest.raises(ConfigError, match="not allowed"):
            crontab.write("x")
    else:
        assert crontab.read() == words


def test_without_a_crontab_program_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError, match="no program crontab"):
        crontab.read()
