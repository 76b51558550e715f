"""A session: one conversation with the cluster's side, during one pass.

`begin` logs in (through the host), starts the far end and returns a Session. Each method is one
verb, one line there and one line back, whatever the number of jobs it is about; every verb may be
repeated. Bulk goes over channels of its own (`data`). A thread pings all channels, because the far
end leaves after a minute of silence: a pass that was stopped or cut off cannot act late.

What comes back is checked and typed here, once. An answer `ok: false` becomes a FarEndError whose
`kind` is the far end's word: an errno name (`ENOSPC`), `workspace`, `batch`, `usage` or `bug`.
"""

from __future__ import annotations

import base64
import secrets
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hpc_batch import far_end
from hpc_batch.data_channel import DataChannel
from hpc_batch.errors import RemoteError

if TYPE_CHECKING:
    from types import TracebackType

    from hpc_batch.config import Remote
    from hpc_batch.hosts import Host

PING_S = 20
"""A channel that sent nothing for so long is pinged. Several times less than SILENCE_S of
hpc_cluster.channel (60)."""


@dataclass(frozen=True)
class Hello:
    """What the cluster's side says about itself."""

    workspace: str
    made: bool
    """The workspace was made just now."""
    node: str
    free_bytes: int
    free_inodes: int
    python: str
    """Path of the interpreter that runs the far end."""


@dataclass(frozen=True)
class Census:
    """Every ticket of this service host, by folder; a ticket that moved meanwhile stands twice."""

    incoming: tuple[str, ...]
    ready: tuple[str, ...]
    running: tuple[str, ...]
    done: tuple[str, ...]
    others_ready: int
    """Tickets of other service hosts of this workspace."""
    others_running: int
    complete: bool
    """Every folder could be listed; only then a missing ticket means anything."""


@dataclass(frozen=True)
class Carried:
    """One input of a job on the cluster, in the order of its description."""

    bytes: int
    key: str | None = None
    """Its name in the store; None: it was sent into the job's folder directly."""


@dataclass(frozen=True)
class Load:
    """What `prepare` needs to know about a job."""

    job: str
    description: Mapping[str, Any]
    script: bytes
    inputs: tuple[Carried, ...]


@dataclass(frozen=True)
class Prepared:
    """Which jobs may be published now, and why others must be staged again."""

    jobs: frozenset[str]
    again: Mapping[str, str]


@dataclass(frozen=True)
class Collected:
    """The end of a job: what the runner and the pilots left behind."""

    result: Mapping[str, Any] | None
    """`result.json`; None where no attempt got as far."""
    pilots: tuple[Mapping[str, Any], ...]
    """`pilot.json`, with the runner's part over it, of the pilot in the ticket's name."""
    error: str | None


@dataclass(frozen=True)
class Pilots:
    """What the queuer saw and did."""

    pilots: tuple[Mapping[str, Any], ...]
    submitted: tuple[str, ...]
    reaped: tuple[str, ...]
    trouble: Mapping[str, Any] | None


@dataclass(frozen=True)
class Submission:
    """What came of a pilot that an operator asked for."""

    pilot: Mapping[str, Any] | None
    """As in Pilots; None where every slot was held."""
    message: str | None
    """Why there is none, or what the batch system said; None when all is well."""


@dataclass(frozen=True)
class Tail:
    """The end of a running job's stream."""

    text: bytes
    size: int
    """Of the whole stream."""
    attempt: int
    """0: no attempt has begun."""


def begin(host: Host, remote: Remote, env: Mapping[str, str], instance: str) -> Session:
    """Start the far end on `host` and return the session. Raises RemoteError."""
    session = Session(host, remote, env, instance)
    try:
        session.open()
    except BaseException:
        session.close()
        raise
    return session


class Session:
    """An open conversation; a context manager that ends it. Methods may be called by any thread."""

    def __init__(self, host: Host, remote: Remote, env: Mapping[str, str], instance: str) -> None:
        self.id = secrets.token_hex(8)
        """S: it stands in every temporary name that this session makes on the cluster."""
        self.exchanges = 0
        """Round trips so far, those of data channels included."""
        self.python = ""
        """Version of the Python that runs the far end."""
        self._host, self._remote, self._env = host, remote, env
        self.instance = instance
        self._asking = threading.Lock()
        self._counting = threading.Lock()
        self._ended = threading.Event()
        self._number = 0
        self._wires: list[far_end.Wire] = []
        self._control: far_end.Wire | None = None

    def open(self) -> None:
        """Open the control channel and begin to ping."""
        self._control = self._start("serve")
        self.python = str(self._control.started.get("python"))
        threading.Thread(target=self._ping, name="session ping", daemon=True).start()

    def data(self) -> DataChannel:
        """Open a channel for bulk: another one of the same login."""
        return DataChannel(self._start("data"), self._count)

    def close(self) -> None:
        """Close every channel; the far end sees the end of its input and leaves."""
        self._ended.set()
        for wire in self._wires:
            wire.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # ---- verbs -------------------------------------------------------------------------------

    def hello(self) -> Hello:
        """Make the workspace if it is missing, and look at it."""
        a = self._ask("hello")
        return Hello(
            workspace=str(a["workspace"]),
            made=bool(a["made"]),
            node=str(a["node"]),
            free_bytes=int(a["free_bytes"]),
            free_inodes=int(a["free_inodes"]),
            python=str(a["pilots_python"]),
        )

    def census(self) -> Census:
        """List every ticket of this service host."""
        a = self._ask("census")
        return Census(
            incoming=_texts(a["incoming"]),
            ready=_texts(a["ready"]),
            running=_texts(a["running"]),
            done=_texts(a["done"]),
            others_ready=int(a["others"]["ready"]),
            others_running=int(a["others"]["running"]),
            complete=bool(a["complete"]),
        )

    def stage(self, jobs: Sequence[str], keys: Mapping[str, int]) -> frozenset[str]:
        """Announce jobs as incoming, and return which of the keys (with their sizes) to send."""
        a = self._ask("stage", jobs=list(jobs), keys=sorted(keys.items()))
        return frozenset(_texts(a["missing"]))

    def prepare(self, loads: Sequence[Load]) -> Prepared:
        """Link the inputs into the jobs and write descriptions and scripts, durably."""
        jobs = [
            {
                "id": load.job,
                "description": dict(load.description),
                "script": load.script.decode("utf-8", "surrogateescape"),
                "inputs": [
                    {"bytes": i.bytes, **({"key": i.key} if i.key else {"sent": True})}
                    for i in load.inputs
                ],
            }
            for load in loads
        ]
        a = self._ask("prepare", jobs=jobs)
        again = {str(job): str(why) for job, why in a["again"].items()}
        return Prepared(frozenset(_texts(a["prepared"])), again)

    def publish(self, jobs: Mapping[str, str]) -> dict[str, str]:
        """incoming to ready: every job with the session that prepared it.

        Returns for each `published`, or `already`: its ticket has gone on from there.
        """
        a = self._ask("publish", jobs=sorted(jobs.items()))
        return {str(job): str(word) for job, word in a.items()}

    def collect(self, tickets: Sequence[str]) -> dict[str, Collected]:
        """Read what stands behind tickets in done."""
        a = self._ask("collect", tickets=list(tickets))
        return {
            str(ticket): Collected(
                result=found["result"],
                pilots=tuple(found["pilots"]),
                error=found["error"],
            )
            for ticket, found in a.items()
        }

    def cancel(self, jobs: Sequence[str]) -> dict[str, str]:
        """Ask for jobs to be stopped: `cancelled` (it never ran), `asked` or `gone` for each."""
        a = self._ask("cancel", jobs=list(jobs))
        return {str(job): str(word) for job, word in a.items()}

    def purge(self, jobs: Sequence[str], *, keep: bool) -> frozenset[str]:
        """Move jobs' data to trash (or to kept), then remove their tickets."""
        return frozenset(_texts(self._ask("purge", jobs=list(jobs), keep=keep)["purged"]))

    def sweep(self, known: Sequence[str], store_bytes: int | None = None) -> tuple[str, ...]:
        """Trash what no record knows any more, and evict inputs until the store fits."""
        a = self._ask("sweep", known=list(known), store_bytes=store_bytes)
        return _texts(a["trashed"])

    def pilots(self, policy: Mapping[str, Any]) -> Pilots:
        """Observe the pilots, reap what dead ones left, submit what the policy asks for."""
        a = self._ask("pilots", policy=dict(policy))
        return Pilots(
            pilots=tuple(a["pilots"]),
            submitted=_texts(a["submitted"]),
            reaped=_texts(a["reaped"]),
            trouble=a["trouble"],
        )

    def submit(self, policy: Mapping[str, Any], pilot: str) -> Submission:
        """Submit one pilot now, of the name given, whether work is waiting or not."""
        a = self._ask("submit", policy=dict(policy), pilot=pilot)
        return Submission(a["pilot"], a["message"])

    def dismiss(self, pilots: Sequence[str]) -> dict[str, str]:
        """End pilots: `asked`, `gone`, `unknown`, or what went wrong, for each."""
        a = self._ask("dismiss", pilots=list(pilots))
        return {str(pilot): str(word) for pilot, word in a.items()}

    def wait(self, seconds: float, seen: Sequence[str]) -> bool:
        """Wait until done holds a ticket that is not in `seen`; False: it did not come in time."""
        return bool(self._ask("wait", seconds=seconds, seen=list(seen))["changed"])

    def tail(self, job: str, stream: str, bytes: int) -> Tail:
        """Return the last bytes of a job's `stdout` or `stderr`, of its latest attempt."""
        a = self._ask("tail", job=job, stream=stream, bytes=bytes)
        return Tail(base64.b64decode(a["text"]), int(a["size"]), int(a["attempt"]))

    # ---- one exchange ------------------------------------------------------------------------

    def _ask(self, verb: str, **args: Any) -> Any:
        """Send one verb and return its result."""
        if self._control is None:
            raise RemoteError("the session is not open")
        try:
            with self._asking:
                self._number += 1
                self._control.send({"n": self._number, "verb": verb, "args": args})
                answer = self._control.answer(verb)
        finally:
            self._count()
        if answer.get("n") != self._number:
            raise RemoteError(f"the cluster's side answered something else to {verb}")
        return answer["result"]

    def _start(self, mode: far_end.Mode) -> far_end.Wire:
        line = far_end.command(self._remote, self._env, mode, self.id, self.instance)
        wire = far_end.start(self._host, line, self._remote, self._env)
        self._wires.append(wire)
        return wire

    def _count(self) -> None:
        with self._counting:
            self.exchanges += 1

    def _ping(self) -> None:
        while not self._ended.wait(PING_S / 4):
            for wire in list(self._wires):
                wire.ping(PING_S)


def _texts(values: Sequence[Any]) -> tuple[str, ...]:
    return tuple(str(value) for value in values)
