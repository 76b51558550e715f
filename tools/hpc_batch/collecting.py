"""Collecting: from a ticket in `done` to an answer that is decided.

The census brings results along, as many as it can; the others are read in one exchange, and
everything that belongs to them is fetched in one stream:
outputs into temporary files beside their destinations, verified by size and sha256, and the
beginning and end of stdout and stderr. Big outputs travel in the lane, while the pass goes on.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hpc_batch import jobfile, node, placing
from hpc_batch.bulk import Fetched, Wanted, WantedOutput, WantedStream
from hpc_batch.data_channel import DataChannel
from hpc_batch.inputs import BIG_BYTES
from hpc_batch.lane import Lane
from hpc_batch.node import Node
from hpc_batch.record import Record
from hpc_batch.records import Records
from hpc_batch.session import Session
from hpc_batch.tidings import Collected
from hpc_batch.travel import Travel
from hpc_cluster import durable, files

PASSING = frozenset(errno.errorcode[number] for number in files.PASSING)
"""Failures of a fetch that may pass; the job waits for a later pass."""


@dataclass(frozen=True)
class Ticket:
    """A name in `done`: J.aN.P.KIND."""

    name: str
    job: str
    attempt: int
    kind: str


def ticket_of(name: str) -> Ticket:
    """Parse the name of a done ticket. Raises ValueError."""
    job, attempt, _, kind = name.split(".")
    return Ticket(name, job, int(attempt[1:]), kind)


@dataclass
class Collection:
    """What came of collecting a batch."""

    placing: list[Record] = field(default_factory=list)
    """Outputs are here, verified."""
    nodes: dict[str, Node] = field(default_factory=dict)
    """J: the answer's node, of each job that is decided."""
    answering: list[Record] = field(default_factory=list)
    """Nothing to place."""
    waiting: dict[str, str] = field(default_factory=dict)
    stuck: dict[str, str] = field(default_factory=dict)
    doubts: dict[str, str] = field(default_factory=dict)
    """J: what belongs to the job and was not found, of those that are decided all the same. A
    file server may not have heard of it yet: one look proves nothing."""


class Collecting:
    """The collecting of one session."""

    def __init__(
        self, session: Session, records: Records, lane: Lane, data: Callable[[], DataChannel]
    ) -> None:
        self._session, self._records, self._lane, self._data = session, records, lane, data

    def collect(
        self,
        batch: Sequence[tuple[Record, Ticket]],
        stream_bytes: int,
        known: Mapping[str, Collected],
    ) -> Collection:
        """Read results and fetch what belongs to them.

        `stream_bytes` caps stdout and stderr; `known` are the results that the census read along.
        """
        result = Collection()
        unknown = [t.name for _, t in batch if t.name not in known]
        found = {**known, **(self._session.collect(unknown) if unknown else {})}
        wanted: list[Wanted] = []
        parts: list[tuple[Record, Ticket, Collected, list[int | None], list[Fetched]]] = []
        for record, ticket in batch:
            collected = found[ticket.name]
            items = _streams(ticket, collected, stream_bytes) if ticket.attempt else []
            outputs = self._outputs(record, ticket, collected)
            carried: list[Fetched] = []
            if sum(o.bytes for o in outputs) >= BIG_BYTES:
                found_here = self._carried(record, outputs, result)
                if found_here is None:
                    continue
                carried, outputs = found_here, []
            places: list[int | None] = []
            for item in (*items, *outputs):
                places.append(None if item is None else len(wanted))
                if item is not None:
                    wanted.append(item)
            parts.append((record, ticket, collected, places, carried))
        fetched = self._data().fetch(wanted) if wanted else []
        for record, ticket, collected, places, carried in parts:
            got = [*(Fetched() if n is None else fetched[n] for n in places), *carried]
            self._decide(record, ticket, collected, got, result)
        here = [
            placing.temporary(r, n, r.attempt)
            for r in result.placing
            for n in range(len(r.targets))
        ]
        durable.sync_files(here)
        # Placing looks for them by their names, also after a power cut.
        durable.sync_folders({os.path.dirname(path) for path in here})
        return result

    def _outputs(self, record: Record, ticket: Ticket, collected: Collected) -> list[WantedOutput]:
        """Return what to fetch for a job that ended well."""
        if ticket.kind != "ok" or not collected.result:
            return []
        # A release before this one did not keep the layout in the record.
        description = {} if record.layout else self._records.document(record.id, "description")
        layout = record.layout or description["layout"]
        known = collected.result.get("outputs", {})
        return [
            WantedOutput(
                job=record.id,
                attempt=ticket.attempt,
                name=os.path.basename(target.path),
                layout=layout,
                bytes=int(known[target.key]["bytes"]),
                opener=_opener(placing.temporary(record, number, ticket.attempt)),
                sha256=str(known[target.key]["sha256"]),
            )
            for number, target in enumerate(record.targets)
            if target.key in known
        ]

    def _carried(
        self, record: Record, outputs: list[WantedOutput], result: Collection
    ) -> list[Fetched] | None:
        """Have the lane fetch big outputs, durably; return what came of it once it has."""
        name, total = f"outputs of {record.id}", sum(o.bytes for o in outputs)
        here: list[Fetched] | None = self._lane.take(name)
        if here is None:
            self._lane.put(
                name, Travel("out", f"outputs of {record.name}", total), _fetcher(outputs)
            )
            result.waiting[record.id] = f"its outputs are on their way ({total} bytes)"
        return here

    def _decide(
        self,
        record: Record,
        ticket: Ticket,
        collected: Collected,
        fetched: list[Fetched],
        result: Collection,
    ) -> None:
        """Turn what was found into the answer's node, or leave the job for a later sweep."""
        record = record.but(ticket=ticket.name, attempt=ticket.attempt)
        streams, outputs = fetched[:2], fetched[2:]
        now = collected.error if collected.passing else _passing(streams)
        if now is not None:
            result.stuck[record.id] = now
            return
        stdout, stderr = (_text(s) for s in streams) if streams else ("", "")
        found = collected.result
        # Of others, a start that nobody counts may have left a result, or none.
        promised = collected.error if ticket.kind in ("ok", "fail") else None
        doubt = promised or _short(found, streams)
        if doubt is not None:
            result.doubts[record.id] = doubt
        if found is None and ticket.kind in ("ok", "fail"):
            message = f"its result on the cluster cannot be read: {collected.error}"
            self._answer(record, node.make(record, "lost", message), result)
            return
        if ticket.kind == "died":
            pilots = [dict(p) for p in collected.pilots]
            seen = _of_dead(ticket, pilots, stdout, stderr)
            text = node.died_message(pilots)
            self._answer(record, node.make(record, "pilot_died", text, seen=seen), result)
            return
        if ticket.kind == "cancelled":
            seen = node.from_result(found or {"attempt": ticket.attempt}, stdout, stderr, False)
            text = "cancelled" if ticket.attempt == 0 else "cancelled while it was running"
            self._answer(record, node.make(record, "cancelled", text, seen=seen), result)
            return
        ended = found or {}
        seen = node.from_result(ended, stdout, stderr, ticket.kind == "ok")
        if ticket.kind == "fail":
            reason, text = str(ended.get("reason")), str(ended.get("message"))
            self._answer(record, node.make(record, reason, text, seen=seen), result)
            return
        trouble = self._trouble(record, ended, outputs)
        if trouble is None:
            result.placing.append(record)
            result.nodes[record.id] = node.make(record, "completed", "processed OK", seen=seen)
        elif trouble[0]:
            result.stuck[record.id] = trouble[1]
        else:
            if any(_is_gone(got) for got in outputs):
                result.doubts.setdefault(record.id, trouble[1])
            seen["outputs"] = {}
            self._answer(record, node.make(record, "stage_out", trouble[1], seen=seen), result)

    def _answer(self, record: Record, decided: Node, result: Collection) -> None:
        result.answering.append(record)
        result.nodes[record.id] = decided

    def _trouble(
        self, record: Record, found: Mapping[str, Any], outputs: list[Fetched]
    ) -> tuple[bool, str] | None:
        """Return what is wrong with fetched outputs, and whether it may pass."""
        if len(outputs) != len(record.targets):
            return False, "the cluster's result does not name every output"
        for number, (target, got) in enumerate(zip(record.targets, outputs)):
            want = found["outputs"][target.key]
            if got.failure is not None:
                text = f"output {target.key} {target.path!r}: {got.failure.message}"
                return got.failure.kind in PASSING, text
            if got.sha256 != want["sha256"]:
                with contextlib.suppress(OSError):
                    files.unlink(placing.temporary(record, number, record.attempt))
                return False, f"output {target.key} was changed on the cluster after the job ended"
        return None


def _streams(ticket: Ticket, collected: Collected, stream_bytes: int) -> list[Wanted | None]:
    """Return what to fetch of stdout and stderr; None for one that is known to be empty."""
    half, found = stream_bytes // 2, collected.result or {}
    return [
        None
        if found.get(f"{name}_bytes") == 0
        else WantedStream(ticket.job, ticket.attempt, name, half, half)
        for name in ("stdout", "stderr")
    ]


def _fetcher(outputs: list[WantedOutput]) -> Callable[[DataChannel, Travel], list[Fetched]]:
    """Return the lane's work for big outputs. Raises OSError where they cannot be made durable."""

    def fetch(channel: DataChannel, travel: Travel) -> list[Fetched]:
        fetched = channel.fetch(outputs, travel.move, travel.skip)
        for output, got in zip(outputs, fetched):
            if got.failure is None:
                descriptor = output.opener()
                try:
                    durable.sync_descriptor(descriptor)
                finally:
                    os.close(descriptor)
        return fetched

    return fetch


def _opener(path: str) -> Callable[[], int]:
    """Return what opens an output's temporary; its mode is the folder's default, never another."""
    return lambda: files.open_partial(path, 0o666)


def _passing(streams: list[Fetched]) -> str | None:
    """Return why streams that are there cannot be fetched now; None where nothing is wrong."""
    for name, stream in zip(("stdout", "stderr"), streams):
        if stream.failure is not None and stream.failure.kind in PASSING:
            return f"its {name} cannot be fetched: {stream.failure.message}"
    return None


def _short(found: Mapping[str, Any] | None, streams: list[Fetched]) -> str | None:
    """Return which stream is not as long as the result says; None where nothing is wrong."""
    for name, stream in zip(("stdout", "stderr"), streams):
        wanted = (found or {}).get(f"{name}_bytes", 0)
        if isinstance(wanted, int) and wanted > stream.size:
            return f"its {name} has {stream.size} of {wanted} bytes"
    return None


def _is_gone(output: Fetched) -> bool:
    """Tell whether an output was not found on the cluster, or could not be had there."""
    return output.failure is not None and not output.failure.here


def _text(stream: Fetched) -> str:
    if stream.failure is not None:
        return ""
    return jobfile.cut(stream.head, stream.tail, stream.size)


def _of_dead(
    ticket: Ticket, pilots: list[dict[str, Any]], stdout: str, stderr: str
) -> dict[str, Any]:
    last = pilots[-1] if pilots else {}
    return {
        "attempts": ticket.attempt,
        "node": last.get("host"),
        "pilot": {"id": last.get("pilot"), "native_id": last.get("native_id")},
        "stdout": stdout,
        "stderr": stderr,
    }
