"""A session: one conversation with the cluster's side, during one pass.

`begin` logs in (through the host), starts the far end and returns a Session. Each method is one
verb, one line there and one line back, whatever the number of jobs it is about; every verb may be
repeated. The methods that begin with `begin_` return once the verb is sent: what is asked together
costs one round trip, and is performed in that order. Bulk goes over the same wire (`bulk`), big
files over a channel of their own (`data`). A thread pings all channels, because the far end leaves
after a minute of silence: a pass that was stopped or cut off cannot act late.

What comes back is checked and typed here, once. An answer `ok: false` becomes a FarEndError whose
`kind` is the far end's word: an errno name (`ENOSPC`), `workspace`, `batch`, `usage` or `bug`.
"""

from __future__ import annotations

import base64
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from hpc_batch import far_end, threads, tidings
from hpc_batch.conversation import Conversation
from hpc_batch.data_channel import DataChannel
from hpc_batch.errors import RemoteError
from hpc_batch.tidings import (
    Announced,
    Census,
    Collected,
    Hello,
    Load,
    Pilots,
    Prepared,
    Submission,
    Swept,
    Tail,
)

if TYPE_CHECKING:
    from types import TracebackType

    from hpc_batch.config import Remote
    from hpc_batch.hosts import Host

PING_S = 20
"""A channel that sent nothing for so long is pinged. Several times less than SILENCE_S of
hpc_cluster.channel (60)."""


Told = TypeVar("Told")


class Answer(Generic[Told]):
    """An answer that has been asked for."""

    def __init__(self, get: Callable[[], Told]) -> None:
        self._get = get
        self._told: list[Told] = []

    def get(self) -> Told:
        """Wait for it and return it, each time the same. Raises RemoteError."""
        if not self._told:
            self._told.append(self._get())
        return self._told[0]


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
        self.id = os.urandom(8).hex()
        """S: it stands in every temporary name that this session makes on the cluster."""
        self.python = ""
        """Version of the Python that runs the far end."""
        self._host, self._remote, self._env = host, remote, env
        self.instance = instance
        self._counting = threading.Lock()
        self._counted = 0
        """Exchanges on channels of their own."""
        self._ended = threading.Event()
        self._wires: list[far_end.Wire] = []
        self._talk: Conversation | None = None
        self._frames = False
        """The far end takes frames between verbs; one of the release before does not."""

    @property
    def exchanges(self) -> int:
        """Return the round trips so far, those of data channels included."""
        return self._counted + (self._talk.flights if self._talk else 0)

    def open(self) -> None:
        """Open the control channel and begin to ping."""
        control = self._start("serve")
        self._talk = Conversation(control)
        self._frames = control.started.get("frames") is True
        self.python = str(control.started.get("python"))
        threads.start(self._ping, "session ping")

    def bulk(self) -> DataChannel:
        """Return what carries files between the verbs, one user at a time."""
        if self._talk is None or not self._frames:
            return self.data()
        return DataChannel(self._talk, self._talk.waited)

    def data(self) -> DataChannel:
        """Open a channel for bulk of its own: another one of the same login."""
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
        return self.begin_census().get()

    def begin_census(self, *, results: bool = False) -> Answer[Census]:
        """Begin to list every ticket, and with `results` to read what stands behind those in done.

        Where those are many, only some of them are read.
        """
        return self._begin("census", tidings.census, results=results)

    def stage(self, jobs: Sequence[str], keys: Mapping[str, int]) -> frozenset[str]:
        """Announce jobs as incoming, and return which of the keys (with their sizes) to send."""
        return self.begin_stage(jobs, keys).get().missing

    def begin_stage(self, jobs: Sequence[str], keys: Mapping[str, int]) -> Answer[Announced]:
        """Begin to announce jobs."""
        return self._begin(
            "stage",
            lambda a: Announced(
                frozenset(tidings.texts(a["missing"])),
                frozenset(tidings.texts(a.get("published", ()))),
            ),
            jobs=list(jobs),
            keys=sorted(keys.items()),
        )

    def prepare(self, loads: Sequence[Load]) -> Prepared:
        """Link the inputs into the jobs and write descriptions and scripts, durably."""
        return self.begin_prepare(loads).get()

    def begin_prepare(self, loads: Sequence[Load]) -> Answer[Prepared]:
        """Begin to link the inputs."""
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
        return self._begin("prepare", tidings.prepared, jobs=jobs)

    def publish(self, jobs: Mapping[str, str]) -> dict[str, str]:
        """incoming to ready: every job with the session that prepared it.

        Returns for each `published`, or `already`: its ticket has gone on from there.
        """
        return self.begin_publish(jobs).get()

    def begin_publish(self, jobs: Mapping[str, str]) -> Answer[dict[str, str]]:
        """Begin to publish."""
        return self._begin("publish", tidings.words, jobs=sorted(jobs.items()))

    def collect(self, tickets: Sequence[str]) -> dict[str, Collected]:
        """Read what stands behind tickets in done."""
        return tidings.collected(self._ask("collect", tickets=list(tickets)))

    def cancel(self, jobs: Sequence[str]) -> dict[str, str]:
        """Ask for jobs to be stopped: `cancelled` (it never ran), `asked` or `gone` for each."""
        return tidings.words(self._ask("cancel", jobs=list(jobs)))

    def purge(self, jobs: Sequence[str], *, keep: bool) -> frozenset[str]:
        """Move jobs' data to trash (or to kept), then remove their tickets."""
        return self.begin_purge(jobs, keep=keep).get()

    def begin_purge(self, jobs: Sequence[str], *, keep: bool) -> Answer[frozenset[str]]:
        """Begin to purge."""
        return self._begin("purge", tidings.purged, jobs=list(jobs), keep=keep)

    def sweep(
        self,
        known: Sequence[str],
        store_bytes: int | None = None,
        kept_s: float | None = None,
    ) -> Swept:
        """Trash what no record knows any more, and evict inputs until the store fits.

        With `kept_s`, what lies in `kept/` for longer than so many seconds goes, too.
        """
        return self.begin_sweep(known, store_bytes, kept_s).get()

    def begin_sweep(
        self,
        known: Sequence[str],
        store_bytes: int | None = None,
        kept_s: float | None = None,
    ) -> Answer[Swept]:
        """Begin to sweep."""
        return self._begin(
            "sweep", tidings.swept, known=list(known), store_bytes=store_bytes, kept_s=kept_s
        )

    def pilots(self, policy: Mapping[str, Any]) -> Pilots:
        """Observe the pilots, reap what dead ones left, submit what the policy asks for."""
        return tidings.pilots(self._ask("pilots", policy=dict(policy)))

    def begin_pilots(
        self, policy: Mapping[str, Any], *, unless_done: bool = False
    ) -> Answer[Pilots | None]:
        """Begin to look after the pilots; None with `unless_done` where a result waits."""
        return self._begin(
            "pilots",
            lambda a: None if a is None else tidings.pilots(a),
            policy=dict(policy),
            unless_done=unless_done,
        )

    def submit(self, policy: Mapping[str, Any], pilot: str) -> Submission:
        """Submit one pilot now, of the name given, whether work is waiting or not."""
        a = self._ask("submit", policy=dict(policy), pilot=pilot)
        return Submission(a["pilot"], a["message"])

    def dismiss(self, pilots: Sequence[str]) -> dict[str, str]:
        """End pilots: `asked`, `gone`, `unknown`, or what went wrong, for each."""
        return tidings.words(self._ask("dismiss", pilots=list(pilots)))

    def wait(self, seconds: float, seen: Sequence[str]) -> bool:
        """Wait until done holds a ticket that is not in `seen`; False: it did not come in time."""
        return bool(self._ask("wait", seconds=seconds, seen=list(seen))["changed"])

    def watch(self, seconds: float, seen: Sequence[str], come: Callable[[], None]) -> None:
        """Have the far end wait, and go on: `come` is called, by a thread, when done holds a ticket
        that is not in `seen`, or when the connection breaks.

        Any other request ends the watch before it is answered; no round trip is lost by that.
        """
        waiting = self._begin(
            "wait", lambda a: bool(a["changed"]), seconds=seconds, seen=list(seen)
        )
        threads.start(_listen, "watch", waiting, come)

    def tail(self, job: str, stream: str, bytes: int) -> Tail:
        """Return the last bytes of a job's `stdout` or `stderr`, of its latest attempt."""
        a = self._ask("tail", job=job, stream=stream, bytes=bytes)
        return Tail(base64.b64decode(a["text"]), int(a["size"]), int(a["attempt"]))

    # ---- one exchange ------------------------------------------------------------------------

    def _ask(self, verb: str, **args: Any) -> Any:
        """Send one verb and return its result."""
        return self._begin(verb, lambda a: a, **args).get()

    def _begin(self, verb: str, read: Callable[[Any], Told], **args: Any) -> Answer[Told]:
        """Send one verb, and return how to get its answer."""
        talk = self._talk
        if talk is None:
            raise RemoteError("the session is not open")
        number = talk.ask(verb, args)
        return Answer(lambda: read(talk.result(number, verb)))

    def _start(self, mode: far_end.Mode) -> far_end.Wire:
        line = far_end.command(self._remote, self._env, mode, self.id, self.instance)
        wire = far_end.start(self._host, line, self._remote, self._env)
        self._wires.append(wire)
        return wire

    def _count(self) -> None:
        with self._counting:
            self._counted += 1

    def _ping(self) -> None:
        while not self._ended.wait(PING_S / 4):
            for wire in list(self._wires):
                wire.ping(PING_S)


def _listen(waiting: Answer[bool], come: Callable[[], None]) -> None:
    """Wait for the answer to a watch."""
    try:
        changed = waiting.get()
    except Exception:
        changed = True  # whoever asks next meets it as well
    if changed:
        come()
