"""A journal that a disk has damaged, against an oracle that was written for these tests alone.

Jobs live through all their phases in one journal, batch by batch. Then its bytes are changed: cut,
flipped, overwritten, zeroed. The oracle knows each line by its place, and which of them are as they
were. What is promised: a job of which no line was hit stands as it stood; one that was hit stands
as some whole line of it says, and a paper of it is the one that counted there, or is missed. What a
pass then writes counts.
"""

from __future__ import annotations

import json
import os
import random
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from hpc_batch import journal
from hpc_batch.journal import Damaged
from hpc_batch.record import Phase, Record
from hpc_batch.records import Records
from hpc_cluster import effects, files

ROUNDS = 1000 if os.environ.get("HPC_BATCH_FULL") else 50
"""Journals that each damage is tried on."""

LIVES: tuple[tuple[tuple[Phase | None, tuple[str, ...]], ...], ...] = (
    (
        ("INTENT", ()),
        ("ACCEPTED", ()),
        ("STAGING", ("job", "description", "script")),
        ("PUBLISHING", ()),
        ("PUBLISHED", ()),
        ("PLACING", ("answer",)),
        ("ANSWERING", ()),
        ("CLEANING", ()),
        (None, ()),
    ),
    (
        ("INTENT", ()),
        ("ACCEPTED", ()),
        ("STAGING", ("job", "description", "script")),
        ("PUBLISHING", ()),
        ("PUBLISHED", ()),
        ("PUBLISHED", ()),
        ("PLACING", ("answer",)),
        ("UNPLACING", ("answer",)),
        ("ANSWERING", ("answer",)),
        ("CLEANING", ()),
        (None, ()),
    ),
    (("INTENT", ()), ("ACCEPTED", ()), ("ANSWERING", ("job", "answer")), ("CLEANING", ())),
)
"""The phases of a job and the papers that come with each; None: it is forgotten."""


class Line(NamedTuple):
    """One line of an undamaged journal."""

    begin: int
    end: int
    job: str
    record: Mapping[str, Any] | None
    papers: Mapping[str, Any]


class Found(NamedTuple):
    """What is known of a job; a paper that is missed is None."""

    record: Mapping[str, Any]
    papers: Mapping[str, Any]


def name_of(number: int) -> str:
    return f"0123abcd-0199aabbccd-{number:016x}"


def lived(path: Path, draw: random.Random) -> None:
    """Let some jobs live for a while, all in one journal."""
    files.append(str(path), b"")
    records = Records(path).load()
    jobs = {name_of(n): iter(draw.choice(LIVES)) for n in range(draw.randint(1, 6))}
    for _ in range(draw.randint(1, 40)):
        batch, papers, gone = [], {}, []
        for job in draw.sample(sorted(jobs), draw.randint(1, len(jobs))):
            phase, names = next(jobs[job], (None, ()))
            if phase is None:
                gone += [records[job]] if job in records else []
                continue
            text = "".join(draw.choices('x"\n\\é\t0', k=draw.choice((1, 40, 3000))))
            papers[job] = {name: {"text": f"{phase} {text}"} for name in names}
            batch.append(Record(job, phase, "x.job", "/d", "h", "/w", message=text[:20]))
        if draw.random() < 0.5:
            batch.reverse()
        records.save_all(batch, papers)
        records.remove_all(gone)


def lines(data: bytes) -> list[Line]:
    """Read an undamaged journal."""
    found, begin = [], 0
    for text in data.splitlines(keepends=True):
        crc, _, content = text.partition(b" ")
        assert int(crc, 16) == zlib.crc32(content)
        head, *fields = content[:-1].split(b"\t")
        job, _, record = head.decode().partition(" ")
        papers = {fields[n].decode(): json.loads(fields[n + 1]) for n in range(0, len(fields), 2)}
        found.append(Line(begin, begin + len(text), job, json.loads(record or "null"), papers))
        begin += len(text)
    return found


def told(history: list[Line], whole: Callable[[Line], bool]) -> dict[str, Found]:
    """Return what may be believed of each job: its last whole line, and no paper that is older."""
    believed = {}
    for job in {line.job for line in history}:
        own = [line for line in history if line.job == job]
        last = max((n for n, line in enumerate(own) if whole(line)), default=None)
        if last is None or (record := own[last].record) is None:
            continue
        papers: dict[str, Any] = {}
        for line in own[: last + 1]:
            papers = {} if line.record is None else papers
            papers.update(line.papers if whole(line) else dict.fromkeys(line.papers))
        believed[job] = Found(record, papers)
    return believed


def read(path: Path) -> dict[str, Found]:
    """Return what a pass makes of a journal."""
    read = journal.Journal(str(path)).read()
    found = {}
    for job, _, record in read.records():
        papers = {}
        for name in ("job", "description", "script", "answer"):
            try:
                papers[name] = read.paper(job, name)
            except Damaged:
                papers[name] = None
        found[job] = Found(record, papers)
    return found


def wrong(expected: Mapping[str, Found], found: Mapping[str, Found], hit: set[str]) -> list[str]:
    """Return what is not as promised; jobs that were hit may miss papers."""
    said = []
    for job in sorted(expected.keys() | found.keys()):
        if job not in expected or job not in found:
            said.append(f"{job} is {'lost' if job in expected else 'there'}")
            continue
        (wanted, papers), (record, got) = expected[job], found[job]
        if wanted != record:
            said.append(f"{job} stands at {record}, not at {wanted}")
        for name, paper in got.items():
            if paper != papers.get(name) and (paper is not None or job not in hit):
                said.append(f"{job}: its {name} is {paper}, not {papers.get(name)}")
    return said


def flip(data: bytearray, draw: random.Random) -> None:
    for _ in range(draw.choice((1, 1, 3, 10))):
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)


def ends(data: bytearray, draw: random.Random) -> None:
    """Newlines go, and come."""
    places = [n for n, byte in enumerate(data) if byte == 10]
    for _ in range(draw.choice((1, 2))):
        data[draw.choice(places)] = draw.choice((0, 32, 9))
        data[draw.randrange(len(data))] = 10


def overwrite(data: bytearray, draw: random.Random) -> None:
    """A block with zeros, ones or noise."""
    size = draw.choice((16, 64, 512, 4096))
    begin = draw.randrange(len(data)) // size * size
    end = min(len(data), begin + size)
    noise = draw.randbytes(end - begin)
    data[begin:end] = draw.choice((bytes(end - begin), b"\xff" * (end - begin), noise))


def cut(data: bytearray, draw: random.Random) -> None:
    """Its end is missing, or zeros, or noise."""
    length = draw.randint(1, min(len(data), 5000))
    del data[-length:]
    data += draw.choice((b"", bytes(length), draw.randbytes(length), b"\n" * length))


DAMAGES = {"flipped": flip, "newlines": ends, "block": overwrite, "cut": cut}


def rounds(path: Path, damage: str) -> Iterator[tuple[int, random.Random, list[Line], bytes]]:
    """Yield journals before a damage, and what stands in their place after it."""
    for number in range(ROUNDS):
        draw = random.Random(f"{damage} {number}")
        path.unlink(missing_ok=True)
        lived(path, draw)
        before = path.read_bytes()
        history = lines(before)
        assert read(path).keys() == told(history, lambda line: True).keys()
        data = bytearray(before)
        for _ in range(draw.choice((1, 1, 2))):
            if data:
                DAMAGES[damage](data, draw)
        path.write_bytes(data)
        yield number, draw, history, before


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here cuts the power."""
    monkeypatch.setattr(effects, "fsync", lambda descriptor: None)


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_hurts_the_jobs_that_it_hits(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "journal"
    for number, draw, history, before in rounds(path, damage):
        after = path.read_bytes()

        def whole(line: Line, before: bytes = before, after: bytes = after) -> bool:
            return before[line.begin : line.end] == after[line.begin : line.end]

        hit = {line.job for line in history if not whole(line)}
        expected = told(history, whole)
        assert not wrong(expected, read(path), hit), (damage, number)
        # A pass reads it, and writes it anew where there is damage; it goes on with each job.
        records = Records(path).load()
        assert not wrong(expected, read(path), hit), (damage, number, "written anew")
        papers = {job: {"script": f"{number}\n"} for job in expected}
        changed = {
            job: record.enter("CLEANING", message=f"{number}")
            for job in draw.sample(sorted(expected), len(expected) // 2)
            for record in [records[job]]
        }
        records.save_all(changed.values(), papers)
        for job, record in changed.items():
            kept = expected[job].papers
            expected[job] = Found(record.document(), {**kept, "script": f"{number}\n"})
        assert not wrong(expected, read(path), hit), (damage, number, "gone on")
