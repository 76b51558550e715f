"""Answering: from a decided answer to `NAME.job.finished` beside where the drop was.

    decide    write the answer's node durably in the journal, and enter PLACING or ANSWERING
    answer    fill the reserved J.answer, rename it to NAME.job.finished: that rename is the answer
    clean     only then remove the cluster's data, its ticket, the drop and the record

Every step may be repeated after a kill. J.answer exists from before the drop was taken until the
one rename, so its absence means: already answered.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from hpc_batch import jobfile, node, placing
from hpc_batch.intake import ANSWER_BYTES, Intake, move_aside
from hpc_batch.journal import Damaged
from hpc_batch.node import Node
from hpc_batch.record import Record, history_line, now
from hpc_batch.records import Records
from hpc_batch.state import State
from hpc_cluster import durable, files

if TYPE_CHECKING:
    from hpc_batch.session import Answer

log = logging.getLogger("hpc_batch")


class Remembered(NamedTuple):
    """What is known of an answered job until it is clean."""

    line: bytes
    """What the history will tell of it."""
    went_well: bool


class Answers:
    """The steps from a decided answer to a clean desk; only cleaning needs the cluster."""

    def __init__(self, state: State, records: Records, intake: Intake) -> None:
        self._state, self._records, self._intake = state, records, intake
        self._history: dict[str, Remembered] = {}
        """J: of jobs that are answered and not clean, as far as this pass has met them."""

    def decide(
        self,
        nodes: Iterable[tuple[Record, Node]],
        papers: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> list[Record]:
        """to ANSWERING: make answers durable, and with them the phase, and more `papers` (by J)."""
        batch = [(record.enter("ANSWERING"), decided) for record, decided in nodes]
        more = papers or {}
        self._records.save_all(
            [r for r, _ in batch],
            {r.id: {**more.get(r.id, {}), "answer": decided} for r, decided in batch},
        )
        return [r for r, _ in batch]

    def begin_placing(self, nodes: Iterable[tuple[Record, Node]]) -> None:
        """PUBLISHED to PLACING: make answers and what stands at the destinations durable."""
        batch = list(nodes)
        observed = placing.observe([record for record, _ in batch])
        self._records.save_all(
            [record.enter("PLACING") for record in observed],
            {record.id: {"answer": decided} for record, decided in batch},
        )

    def place(self, batch: Iterable[Record]) -> tuple[dict[str, str], list[Record]]:
        """PLACING to ANSWERING or UNPLACING. Returns what is stuck, and what failed for good."""
        placed, failed, stuck = [], [], {}
        for record in batch:
            try:
                files.twice(placing.place, record)
                placed.append(record)
            except OSError as error:
                text = f"outputs cannot be placed: {error.strerror}: {error.filename!r}"
                if error.errno in files.PASSING:
                    stuck[record.id] = text
                else:
                    failed.append(replace(record, message=text))
        settled = self._settle(placed, stuck)
        self._records.save_all([record.enter("ANSWERING", placed=True) for record in settled])
        self.begin_unplacing(failed)
        return stuck, failed

    def _settle(self, placed: list[Record], stuck: dict[str, str]) -> list[Record]:
        """Make what was placed durable; return the records of which that is known."""
        try:
            placing.settle(placed)
            return placed
        except OSError as error:
            if len(placed) == 1:
                stuck[placed[0].id] = f"outputs are not durable: {error.strerror}"
                return []
        # One of their folders cannot be synced; the others' are synced by themselves.
        return [record for one in placed for record in self._settle([one], stuck)]

    def begin_unplacing(self, failed: Sequence[Record]) -> None:
        """PLACING to UNPLACING: an answer that says why is durable before anything is undone."""
        nodes = {}
        for record in failed:
            decided = self._records.document(record.id, "answer")
            decided.update(status="error", reason="stage_out", message=record.message, outputs={})
            nodes[record.id] = {"answer": decided}
        self._records.save_all([r.enter("UNPLACING") for r in failed], nodes)

    def unplace(self, batch: Iterable[Record]) -> dict[str, str]:
        """UNPLACING to ANSWERING: put everything back. Returns what is stuck."""
        undone, stuck = [], {}
        for record in batch:
            try:
                placing.unplace(record)
                undone.append((record, ""))
            except OSError as error:
                text = f"what stood there cannot be put back: {error.strerror}"
                stuck[record.id] = f"{text}: {error.filename!r}"
        self._answer_unplaced(undone)
        return stuck

    def give_up_unplacing(self, batch: Iterable[Record]) -> None:
        """UNPLACING to ANSWERING: what cannot be put back stays beside its place, and we say so."""
        self._answer_unplaced([(record, f"; {record.message}") for record in batch])

    def _answer_unplaced(self, batch: Sequence[tuple[Record, str]]) -> None:
        """UNPLACING to ANSWERING, with more words for the message of each."""
        nodes = {}
        for record, more in batch:
            decided = self._records.document(record.id, "answer")
            decided["message"] += more
            nodes[record.id] = {"answer": decided}
        self._records.save_all([r.enter("ANSWERING") for r, _ in batch], nodes)

    def answer(self, batch: Iterable[Record]) -> dict[str, str]:
        """ANSWERING to CLEANING: the one rename to NAME.job.finished. Returns what is stuck."""
        filled, answered, stuck = [], [], {}
        readable = self._intake.readable()
        batch = list(batch)
        found = self._records.papers_of((r.id for r in batch), "answer", "echo")
        for record, papers in zip(batch, found):
            path = self._state.of_job(record.id, "answer")
            if not files.exists(path):
                answered.append(record)  # renamed before a kill
                continue
            try:
                self._fill(path, record, papers, readable)
                filled.append(record)
            except OSError as error:
                stuck[record.id] = f"the answer cannot be written: {error.strerror}"
        try:
            durable.sync_files([self._state.of_job(r.id, "answer") for r in filled])
        except OSError as error:
            stuck.update((r.id, f"the answer cannot be written: {error.strerror}") for r in filled)
            filled = []
        drops = [self._intake.drop_path(record) for record in filled]
        free = files.missing(f"{d}{e}" for d in drops for e in (".cancel", ".finished"))
        for record in filled:
            if self._rename(record, free, stuck):
                answered.append(record)
        self._state.trash.sync()
        durable.sync_folders([str(self._state.dropbox), str(self._state.inner)])
        self._records.save_all(
            [r.enter("CLEANING", times={**r.times, "returned": now()}) for r in answered]
        )
        return stuck

    def _fill(
        self, path: str, record: Record, papers: Mapping[str, Any], readable: tuple[int, int]
    ) -> None:
        """Complete the reserved answer; where the disk is full, with less of the streams.

        `readable` is its mode and group.
        """
        decided: Node = papers.get("answer") or self._records.document(record.id, "answer")
        self._history[record.id] = _remembered(record, decided)
        decided["times"]["returned"] = now()
        description, drop_text = self._intake.echo(record.id, papers)
        for size in (None, 2000, 500, 0):
            told = decided if size is None else node.without_streams(decided, size)
            text = jobfile.answer_text(description, told, drop_text)
            try:
                files.fill(path, text, *readable)
                return
            except OSError:
                if size == 0 or len(text) <= ANSWER_BYTES:
                    raise

    def _rename(self, record: Record, free: Container[str], stuck: dict[str, str]) -> bool:
        """Give an answer its name, and clear the way; in `free` is what was missing just now."""
        drop = self._intake.drop_path(record)
        target = f"{drop}.finished"
        try:
            if not self._state.trash.put(f"{drop}.submitted", f"{record.id}.submitted"):
                self._withdraw(f"{drop}.submitted", looked=False)
            self._withdraw(f"{drop}.cancel", looked=f"{drop}.cancel" in free)
            if target not in free or os.path.lexists(target):
                move_aside(target)
            files.rename(self._state.of_job(record.id, "answer"), target)
            return True
        except OSError as error:
            if not files.exists(self._state.of_job(record.id, "answer")):
                return True  # RACE: renamed, and an error reported all the same
            stuck[record.id] = f"{target!r} cannot be written: {error.strerror}"
            return False

    def _withdraw(self, path: str, *, looked: bool) -> None:
        """Remove what nobody may see beside the answer. Raises OSError for what may pass."""
        try:
            files.twice(lambda: files.unlink(path, looked=looked))
        except OSError as error:
            # RACE: a cancel that came too late must not hit a later drop of this name. Of both the
            # name may be too long to exist, or somebody else's, and then it stays.
            if error.errno in files.PASSING:
                raise

    def clean(
        self, batch: Sequence[Record], purge: Callable[[list[str]], Answer[frozenset[str]]] | None
    ) -> None:
        """CLEANING to –: the cluster's data and ticket, litter and the drop here, the record.

        `purge` begins to remove jobs from the cluster, and tells which are gone; None: there is no
        session, and jobs that were on the cluster wait.
        """
        inner = set(files.names(str(self._state.inner)))
        batch = self._answered(batch, inner)
        near = [r for r in batch if not r.remote]
        far = [r for r in batch if r.remote] if purge is not None else []
        asked = purge([r.id for r in far]) if far and purge is not None else None
        # The cluster is at work meanwhile.
        self._tidy([*near, *far], inner)
        gone = asked.get() if asked is not None else frozenset()
        done = [*near, *(r for r in far if r.id in gone)]
        if done:
            lines = b"".join(self._history.pop(r.id).line for r in done)
            if lines:
                files.append(str(self._state.path("history.jsonl")), lines)
            self._state.trash.sync()
            durable.sync_folder(str(self._state.inner))
            self._records.remove_all(done)

    def _tidy(self, batch: Sequence[Record], inner: Container[str]) -> None:
        """Remove the drops of answered jobs, and litter; of the latter what was seen in `inner`."""
        for record in batch:
            if record.id not in self._history:
                self._history[record.id] = self._recalled(record)
        placed = {r.id for r in batch if r.placed or self._history[r.id].went_well}
        placing.tidy_all({r.id: r for r in batch}, placed)
        litter = [f"{r.id}.{kind}" for r in batch for kind in ("cancel", "submitted")]
        found = [*(name for name in litter if name in inner), *(f"{r.id}.drop" for r in batch)]
        paths = {name: os.path.join(self._state.inner, name) for name in found}
        files.unlink_all([p for n, p in paths.items() if not self._state.trash.put(p, n)])

    def _recalled(self, record: Record) -> Remembered:
        """Return what the history tells of a job that an earlier pass answered."""
        try:
            return _remembered(record, self._records.document(record.id, "answer"))
        except Damaged as damaged:
            log.warning("%s %s; the history lacks it", record.id, damaged)
            return Remembered(b"", False)

    def _answered(self, batch: Sequence[Record], inner: Container[str]) -> list[Record]:
        """Return those that are answered; CLEANING to ANSWERING: the others.

        RACE: that J.answer was not found says that it was renamed, and the file server that said so
        was wrong.
        """
        back = [r for r in batch if f"{r.id}.answer" in inner]
        self._records.save_all([r.enter("ANSWERING") for r in back])
        return [r for r in batch if r not in back]


def _remembered(record: Record, decided: Node) -> Remembered:
    return Remembered(history_line(record, decided), decided["status"] == "ok")
