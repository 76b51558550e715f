"""The report of a pass: `state/status.json`, from which people and programs see how things are.

One document, replaced atomically: the pass, the cluster, the pilots, every job in flight, every
trouble. It is written when a sweep changed something and the pass goes on, and at the end of each
pass; readers never have to lock anything.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hpc_batch.config import Config
from hpc_batch.record import Record, now
from hpc_batch.records import Records
from hpc_batch.sight import Census
from hpc_batch.state import State
from hpc_batch.stuck import stuck_of
from hpc_batch.waiting import Wait
from hpc_cluster import PROTOCOL, files

if TYPE_CHECKING:
    from hpc_batch.connection import Connection
    from hpc_batch.travel import Travel

SCHEMA = "hpc_batch.status/1"

SHOW_S = 2.0
"""How often it is written how far long transfers have come."""

SHOWN = {
    "INTENT": "accepted",
    "ACCEPTED": "accepted",
    "STAGING": "staging",
    "PUBLISHING": "staging",
    "PUBLISHED": "staged",
    "PLACING": "returning",
    "UNPLACING": "returning",
    "ANSWERING": "returning",
}
"""What people call a phase; a published job's ticket may say more, a cleaning one is answered."""


class Report:
    """What a pass tells about itself and about everything."""

    def __init__(self, config: Config, state: State) -> None:
        self._config, self._state = config, state
        last = state.read("status.json") or {}
        self.pilots: list[dict[str, Any]] = last.get("pilots", [])
        """As the queuer last reported them."""
        self._cluster: dict[str, Any] = last.get("cluster", {})
        self._jobs: dict[str, dict[str, Any]] = {j["id"]: j for j in last.get("jobs", [])}
        self.store: dict[str, Any] | None = last.get("store")
        """The input store on the cluster, as the last sweep of it found it."""
        self.wait: Wait | None = None
        """What jobs wait for that lie ready on the cluster; None: not asked in this pass."""
        self._transfers: list[dict[str, Any]] = []
        self._next_show = 0.0
        self._news: list[tuple[str, str, str | None]] = []
        self._counts = {"logins": 0, "channels": 0, "exchanges": 0}
        self._started, self._clock = now(), time.monotonic()
        self._written: dict[str, Any] = {}

    def count(self, connection: Connection) -> None:
        """Add what a login has cost before it ends."""
        for name, number in connection.counts().items():
            self._counts[name] += number

    def look(self, records: Records, census: Census | None) -> None:
        """Take in the jobs in flight; without a census, what was last known of their tickets."""
        jobs = {}
        for record in records:
            if record.phase == "CLEANING" or not self._is_ours(record):
                continue
            before = self._jobs.get(record.id, {})
            state, attempt = _place(record, before, census)
            same = before.get("state") == state
            message, held = record.message, bool(before.get("held")) and state == "staged"
            if message is None and state == "staged":
                message = f"waits for {self.wait.message}" if self.wait else before.get("message")
                held = self.wait.held if self.wait else held
            told = state == "staged" and before.get("state") != "running"  # when published
            if held != bool(before.get("held")) or not (same or told):
                self._news.append((record.id, state, message if held else None))
            jobs[record.id] = {
                "id": record.id,
                "name": record.name,
                "script": record.script or None,
                "state": state,
                "since": before["since"] if same else now(),
                "message": message,
                "held": held,
                "stuck": self._stuck(record, state),
                "attempt": attempt,
                "node": self._node_of(record.id),
                "cancel": False,
                "times": dict(record.times),
            }
        self._jobs = jobs

    def _is_ours(self, record: Record) -> bool:
        """Tell whether a job was taken; before, it is shown as the drop that it still is."""
        if record.phase != "INTENT":
            return True
        return files.exists(self._state.of_job(record.id, "drop"))

    def _stuck(self, record: Record, state: str) -> dict[str, Any] | None:
        counts = (record.missing_at, record.doubted_at, record.stuck_at)
        began = next((count for count in counts if count is not None), None)
        waited_s = self._state.elapsed.age_s(began) if began is not None else 0.0
        found = stuck_of(record, state, waited_s)
        return None if found is None else {**vars(found), "next": found.next}

    def news(self, records: Records) -> Iterator[tuple[Record, str, str | None]]:
        """Yield published jobs whose state on the cluster has changed since it was last told.

        With it comes what a job waits for where no pilot can be had; that is news, too.
        """
        for job, state, message in self._news:
            if job in records and records[job].phase == "PUBLISHED":
                yield records[job], state, message
        self._news = []

    def reachable(self, trouble: str | None) -> None:
        """Note that the cluster answered, or why it did not."""
        fine = trouble is None
        if self._cluster.get("reachable") is not fine:
            self._cluster = {"reachable": fine, "since": now()}
        self._cluster["trouble"] = trouble

    def travels(self, travels: Sequence[Travel]) -> bool:
        """Take in how far the long transfers have come; tell whether it is time to write that."""
        self._transfers = [travel.document() for travel in travels]
        due = bool(travels) and time.monotonic() >= self._next_show
        if due:
            self._next_show = time.monotonic() + SHOW_S
        return due

    def stored(self, count: int, limit: int | None) -> bool:
        """Add bytes that were sent into the store; tell whether it has outgrown its limit."""
        if self.store is None:
            return False
        if count:
            self.store = {**self.store, "bytes": int(self.store["bytes"]) + count, "limit": limit}
        return limit is not None and int(self.store["bytes"]) > limit

    def counted(self, store: Mapping[str, int] | None, evicted: int, limit: int | None) -> None:
        """Take in what a sweep has left in the store."""
        if store is not None:
            before = (self.store or {}).get("evicted", 0)
            self.store = {**store, "limit": limit, "evicted": before + evicted, "at": now()}

    def write(self, troubles: list[dict[str, str]]) -> None:
        """Replace status.json where anything but the time has changed."""
        self._write(None, troubles)

    def end(self, code: int, troubles: list[dict[str, str]]) -> None:
        """Replace status.json at the end of the pass."""
        self._write(code, troubles)

    def _write(self, code: int | None, troubles: list[dict[str, str]]) -> None:
        counts = dict.fromkeys(("accepted", "staging", "staged", "running", "returning"), 0)
        for job in self._jobs.values():
            counts[job["state"]] += 1
        document = {
            "protocol": PROTOCOL,
            "schema": SCHEMA,
            "instance": self._state.instance,
            "dropbox": str(self._state.dropbox),
            "host": self._config.remote.host or "",
            "workspace": self._config.env["workspace"],
            "cluster": {"reachable": None, "since": None, "trouble": None, **self._cluster},
            "paused": self._state.paused(),
            "pilots": self.pilots,
            "counts": counts,
            "jobs": list(self._jobs.values()),
            "transfers": self._transfers,
            "store": self.store,
            "trouble": troubles,
        }
        if code is None and document == self._written:
            return
        self._written = document
        this = {
            "started": self._started,
            "ended": None if code is None else now(),
            "took_s": round(time.monotonic() - self._clock, 3),
            "code": code,
            **self._counts,
        }
        self._state.show("status.json", {**document, "written": now(), "pass": this})

    def _node_of(self, job: str) -> str | None:
        for pilot in self.pilots:
            if job in pilot.get("running", ()):
                return str(pilot.get("node") or "") or None
        return None


def _place(record: Record, before: Mapping[str, Any], census: Census | None) -> tuple[str, int]:
    """Return the state that people see, and the attempt."""
    if record.phase != "PUBLISHED":
        return SHOWN[record.phase], record.attempt
    if census is None:
        known = before.get("state") in ("running", "returning")
        return (before["state"] if known else "staged"), int(before.get("attempt", 0))
    folder, ticket = census.get(record.id, ("ready", ""))
    attempt = int(ticket.split(".")[1][1:].split("c")[0]) if folder in ("running", "done") else 0
    return {"running": "running", "done": "returning"}.get(folder, "staged"), attempt
