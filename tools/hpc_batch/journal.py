"""The journal: the one file of all records of a state folder, `state/journal`, a line a step.

    CRC32 J {"phase": …}\tanswer\t{…}
    CRC32 J

A line holds the whole record of job J as it is from then on and, between tabulators, the names and
contents of the papers that the step wrote (echo, description, script, answer); older lines of J
keep older papers. A line with nothing behind J forgets it.

Each line ends with a newline and begins with the checksum of what follows it, in eight hexadecimal
digits, so that of a line that a kill, a full disk or a power cut has left in part nothing is
believed: the last whole line of a job counts, and the next step is written behind the last whole
line of all.

A step of any number of jobs is one write and one sync, and makes no name and removes none. A
journal that is mostly lines that no longer count is written anew.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import re
import sys
import zlib
from collections.abc import Iterable, Iterator, KeysView, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from hpc_batch.errors import StorageError
from hpc_cluster import durable, files

SLACK = 1 << 20
"""So many bytes of lines that no longer count are always kept."""

OF_A_JOB = re.compile(rb"[0-9a-f]{8} ([0-9A-Za-z-]{1,64})[ \n]")
"""How a line begins."""

ANYWHERE = re.compile(rb"(?=%s)" % OF_A_JOB.pattern)
"""Finds where one may begin, though two such places overlap."""

ID = re.compile(rb'"id": "([0-9A-Za-z-]{1,64})"')
"""How a record, a description and an answer name their job."""

TAIL_BYTES = 1 << 20
"""So much is read of its end, where its end is all that is asked for."""

NEW = ".new"
"""Ends its name while it is being written anew."""


class Damaged(StorageError):
    """The journal, or a paper in it, is missing, cut or overwritten."""

    def __init__(self, path: str, why: str = "") -> None:
        super().__init__(f"{path} is damaged" + (f" ({why})" if why else ""))
        self.path = path


class Step(NamedTuple):
    """What a step writes of one job."""

    record: Mapping[str, Any]
    papers: Mapping[str, Any]

    def fields(self) -> dict[str, bytes]:
        """Return the JSON of the record (named "") and of each paper."""
        found = {"": self.record, **self.papers}
        return {name: files.to_json(value)[:-1] for name, value in found.items()}


class _Span(NamedTuple):
    """Where a line stands."""

    begin: int
    end: int


@dataclass
class _Lines:
    """The lines of one job that count."""

    last: _Span
    papers: dict[str, _Span] = field(default_factory=dict)
    """Of each paper the one that holds it."""

    def spans(self) -> set[_Span]:
        """Return all lines that count."""
        return {self.last, *self.papers.values()}


class Journal:
    """What stands in a journal: as far as it was read, and as it was written since."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._lines: dict[str, _Lines] = {}
        self._end = 0
        """Where the last whole line ends."""
        self._has_damage = False
        self.hurt: set[str] = set()
        """The jobs of which the last line is damaged; "" for one whose job cannot be told.

        What is damaged behind the last whole line never counted, for all that is known.
        """
        self._limit = SLACK
        """When it is longer, it is counted how much of it is needed."""
        self._unsure: int | None = None
        """From where on the disk may hold something else than is known here."""
        self._is_named = False
        """Its name is durable; whoever wrote it anew may have been killed before it was."""

    def read(self) -> Journal:
        """Read all of it; return this journal. Raises OSError, and Damaged where it is no file."""
        try:
            files.twice(self._read_from, 0)
        except FileNotFoundError:
            raise Damaged(self.path, "it is missing") from None
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ELOOP):
                raise Damaged(self.path, "it is no file") from None
            raise
        self._limit = 2 * self._needed() + SLACK
        return self

    def _read_from(self, begin: int) -> None:
        if begin == 0:
            self._lines, self._has_damage, self.hurt = {}, False, set()
        self._end = begin
        damaged: set[str] = set()
        for text in files.lines(self.path, begin):
            end = begin + len(text)
            whole = _whole(text)
            if whole is None:
                rest, whole = _last_of(text)
                begin = end - len(rest)
                damaged |= _jobs_of(text[: -len(rest) or None])
            if whole is not None:
                job, fields = whole
                if damaged:
                    self._has_damage = True
                    self.hurt |= damaged
                    damaged = set()
                if job in self.hurt:
                    self.hurt.remove(job)
                    if job in self._lines:
                        self._lines[job].papers.clear()  # There may have been newer ones.
                names = [sys.intern(name.decode()) for name in fields[1::2]] if fields else None
                self._note(job, _Span(begin, end), names)
            begin = end

    def _note(self, job: str, span: _Span, papers: Sequence[str] | None) -> None:
        """Count a whole line, which holds these papers; None: it forgets the job."""
        self._end = span.end
        if papers is None:
            self._lines.pop(job, None)
            return
        lines = self._lines.setdefault(job, _Lines(span))
        lines.last = span
        for name in papers:
            lines.papers[name] = span

    def _needed(self) -> int:
        """Return how many bytes count."""
        return sum(end - begin for one in self._lines.values() for begin, end in one.spans())

    # ---- asking ------------------------------------------------------------------------------

    def jobs(self) -> KeysView[str]:
        """Return the jobs with a record."""
        return self._lines.keys()

    def holds(self, job: str, name: str) -> bool:
        """Tell whether there is a job's paper of this name."""
        return job in self._lines and name in self._lines[job].papers

    def records(self) -> Iterator[tuple[str, int, Mapping[str, Any]]]:
        """Yield each job, where its record stands, and that; {} for what no pass has written.

        Raises OSError.
        """
        spans = {job: lines.last for job, lines in self._lines.items()}
        for job, text in zip(spans, files.read_spans(self.path, spans.values())):
            document: Mapping[str, Any] = {}
            with contextlib.suppress(Damaged):
                document = self._parsed(job, "", self._fields(job, text))
            yield job, spans[job].begin, document

    def newest(self) -> Iterator[Mapping[str, Any]]:
        """Yield records that count, the newest first, from its end alone; it need not be read yet.

        Raises OSError.
        """
        there = files.look(self.path)
        begin = max(0, there.st_size - TAIL_BYTES) if there is not None else 0
        seen = set()
        for text in reversed(list(files.lines(self.path, begin))):
            job, fields = _whole(text) or ("", [])
            if fields and job not in seen:
                with contextlib.suppress(ValueError):
                    yield json.loads(fields[0])
            seen.add(job)

    def record(self, job: str) -> Mapping[str, Any]:
        """Return the record of a job. Raises Damaged, OSError."""
        if job not in self._lines:
            raise Damaged(self.path, f"it says nothing of {job}")
        found: dict[str, Any] = self._parsed(job, "", self._at(job, self._lines[job].last))
        return found

    def paper(self, job: str, name: str) -> Any:
        """Return the newest of a job's papers that has this name.

        Raises OSError, and Damaged when there is none, and when a damaged line may have held a
        newer one.
        """
        if not self.holds(job, name):
            raise Damaged(self.path, f"the {name} of {job}")
        return self._parsed(job, name, self._at(job, self._lines[job].papers[name]))

    def papers(self, job: str) -> dict[str, Any]:
        """Return the newest of each of a job's papers. Raises Damaged, OSError."""
        papers = self._lines[job].papers if job in self._lines else {}
        return {name: self._parsed(job, name, self._at(job, at)) for name, at in papers.items()}

    def papers_of(self, jobs: Iterable[str], names: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Yield for each job those of its papers with these names that are whole; opened once.

        Raises OSError.
        """
        asked = [*jobs]
        found = [self._lines[job].papers if job in self._lines else {} for job in asked]
        spans = [[papers[name] for name in names if name in papers] for papers in found]
        texts = files.read_spans(self.path, itertools.chain.from_iterable(spans))
        for job, papers in zip(asked, found):
            whole = {}
            for name in names:
                if name in papers:
                    text = next(texts)
                    with contextlib.suppress(Damaged):
                        whole[name] = self._parsed(job, name, self._fields(job, text))
            yield whole

    def _at(self, job: str, span: _Span) -> dict[str, bytes]:
        return self._fields(job, files.twice(files.read_span, self.path, *span))

    def _fields(self, job: str, text: bytes) -> dict[str, bytes]:
        """Return the JSON of the record (named "") and of each paper in a line."""
        found, fields = _whole(text) or ("", [])
        if found != job:
            raise Damaged(self.path, f"a line of {job}")
        return {"": fields[0], **dict(zip(map(bytes.decode, fields[1::2]), fields[2::2]))}

    def _parsed(self, job: str, name: str, fields: Mapping[str, bytes]) -> Any:
        """Return a paper, or the record."""
        try:
            return json.loads(fields[name])
        except (ValueError, KeyError):
            raise Damaged(self.path, f"the {name or 'record'} of {job}") from None

    # ---- writing -----------------------------------------------------------------------------

    def append(self, steps: Mapping[str, Step | None]) -> None:
        """Write a step of many jobs, durably; None forgets a job.

        Raises OSError; then `make_sure` tells what has become of it.
        """
        self.make_sure()
        if self._end > self._limit:
            self.shorten()
        if not self._is_named:
            self._name()
        self._unsure = self._end
        lines = _Written(self._end)
        files.write_end(
            self.path,
            self._end,
            (lines.add(j, step and step.fields()) for j, step in steps.items()),
        )
        self._unsure = None
        for written in lines.written:
            self._note(*written)

    def make_sure(self, since: int | None = None) -> None:
        """Let what the disk holds count after a failure, once it has said that this is durable.

        `since` is a place from where on somebody else, who was killed, may have failed. What a disk
        has failed to write once is not on it though a second sync is well, so it is written once
        more. Raises OSError.
        """
        if self._unsure is not None:
            self._read_from(self._unsure)
            since = self._unsure
        if since is not None:
            self._unsure = since
            self._name()
            text = files.read_span(self.path, since, self._end)
            files.write_end(self.path, since, [text], kept=self._end)
            self._unsure = None

    def _name(self) -> None:
        """Make its name durable."""
        durable.sync_folder(os.path.dirname(self.path))
        self._is_named = True

    def shorten(self) -> None:
        """Write it anew if most of it does not count, or some is damaged. Raises OSError."""
        self._limit = 2 * self._needed() + SLACK
        if self._end <= self._limit and not self._has_damage:
            return
        lines = _Written(0)
        text = b"".join(lines.add(job, self._needed_of(job)) for job in self._lines)
        self._unsure, self._is_named = 0, False
        try:
            files.replace(self.path, text, suffix=NEW)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            files.unlink(self.path + NEW)
            self.make_sure()
            self._limit = 2 * self._end
            return
        self._unsure, self._is_named = None, True
        self._lines, self._has_damage, self._end = {}, False, 0
        for written in lines.written:
            self._note(*written)

    def _needed_of(self, job: str) -> dict[str, bytes]:
        """Return the record and the papers of a job as they stand there."""
        lines = self._lines[job]
        papers = {name: self._at(job, span)[name] for name, span in lines.papers.items()}
        return {"": self._at(job, lines.last)[""], **papers}


class _Written:
    """Lines that are being written, from a place in the journal on."""

    def __init__(self, begin: int) -> None:
        self._end = begin
        self.written: list[tuple[str, _Span, Sequence[str] | None]] = []

    def add(self, job: str, fields: Mapping[str, bytes] | None) -> bytes:
        """Return one more line."""
        text = _line(job, fields)
        begin, self._end = self._end, self._end + len(text)
        self.written.append(
            (job, _Span(begin, self._end), None if fields is None else [*fields][1:])
        )
        return text


def line(job: str, step: Step | None) -> bytes:
    """Return the line of a step of one job; None forgets it."""
    return _line(job, step and step.fields())


def _line(job: str, fields: Mapping[str, bytes] | None) -> bytes:
    content = job.encode() + b"\n"
    if fields is not None:
        papers = [b"\t%s\t%s" % (name.encode(), fields[name]) for name in fields if name]
        content = b"%s %s%s\n" % (job.encode(), fields[""], b"".join(papers))
    return b"%08x %s" % (checksum(content), content)


def checksum(content: bytes) -> int:
    """Return the checksum of what follows it in a line."""
    return zlib.crc32(content)


def _whole(text: bytes) -> tuple[str, list[bytes]] | None:
    """Return the job of a line and what stands behind it, or None when it is not whole.

    That is the record, and the name and the content of each paper; nothing where it forgets the
    job.
    """
    content = text[9:]
    if text[:9] != b"%08x " % checksum(content) or content[-1:] != b"\n":
        return None
    job, _, rest = content[:-1].partition(b" ")
    return job.decode(), rest.split(b"\t") if rest else []


def _last_of(text: bytes) -> tuple[bytes, tuple[str, list[bytes]] | None]:
    """Return the whole line that ends a damaged text, whose own newline is lost, and what it says.

    There is none in most.
    """
    for found in ANYWHERE.finditer(text, 1):
        rest = text[found.start() :]
        whole = _whole(rest)
        if whole is not None:
            return rest, whole
    return b"", None


def _jobs_of(text: bytes) -> set[str]:
    """Return the jobs that a damaged line may be of: its beginning tells, and what it holds."""
    first = OF_A_JOB.match(text)
    return {job.decode() for job in (first.group(1) if first else b"", *ID.findall(text))}
