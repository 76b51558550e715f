"""A login to the simulated cluster: the real far end as an actor, behind a channel in memory.

The far end goes on when the near end is killed, as over SSH: it works off what it had received, as
late as the test likes. A conversation may be disturbed at its n-th message:

    lost    the request never arrives, and the far end dies
    mute    the request is performed, and its answer is lost
    late    nothing comes in time; the far end performs the request when the test says so
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from simulation.actors import Actor, Coroutine, Idle, Sync, Turns, current
from simulation.system import System

from hpc_batch import access, hosts, sending, session
from hpc_batch.errors import RemoteError, RemoteTimeout, Unreachable
from hpc_cluster import channel as far_channel
from hpc_cluster import files
from hpc_cluster import session as far_session
from hpc_cluster.errors import WorkspaceError
from hpc_cluster.frames import Frames
from hpc_cluster.verbs import Verbs

SILENCE_S = 100.0
"""A near end that waits for nothing loses so much time."""


class FarChannel:
    """The far end's side: hpc_cluster.channel.Channel over memory."""

    def __init__(self) -> None:
        self.inbox, self.outbox = bytearray(), bytearray()
        self.ended = False

    def _more(self) -> None:
        if self.ended:
            raise far_channel.Ended("end of input")
        me = current()
        assert me is not None
        me.stop("input")

    def request(self) -> dict[str, Any]:
        while b"\n" not in self.inbox:
            self._more()
        line, _, rest = bytes(self.inbox).partition(b"\n")
        self.inbox[:] = rest
        value = json.loads(line)
        assert isinstance(value, dict)
        return value if "ping" not in value else self.request()

    def has_input(self, patience_s: float = 0.0) -> bool:
        return bool(self.inbox)

    def exactly(self, size: int) -> memoryview:
        while len(self.inbox) < size:
            self._more()
        data = self.inbox[:size]
        del self.inbox[:size]
        return memoryview(data)

    def say(
        self, value: dict[str, Any], data: bytes | memoryview = b"", *, more: bool = False
    ) -> None:
        self.write(files.to_json(value) + bytes(data))

    def write(self, data: bytes) -> None:
        if self.ended:
            raise far_channel.Ended("nobody reads")
        self.outbox += data

    def pause(self, seconds: float) -> None:
        raise AssertionError("no pass waits in a session")

    @contextmanager
    def working(self) -> Iterator[None]:
        yield


class FarEnd:
    """One channel: the near end's side (hosts.Channel), and the actor at the other end."""

    def __init__(self, login: Login, argv: dict[str, str], mode: str) -> None:
        self._login, self._argv, self._mode = login, argv, mode
        self._far = FarChannel()
        self.actor = Actor(login.system.steps, "login", self._serve)
        self.broken = False
        self.late = False
        """It works off what it has received when the test says so."""

    def _serve(self) -> None:
        args = SimpleNamespace(verb=self._mode, **self._argv)
        try:
            try:
                spool, made = far_session._begin(args)
            except (far_session.UsageError, WorkspaceError) as error:
                refusal = {"kind": error.kind, "message": str(error)}
                self._far.write(far_session.REFUSAL + files.to_json(refusal))
                return
            self._far.write(far_session.MARKER + files.to_json(far_session._greeting()))
            far: Any = self._far
            verbs = Verbs(spool, args.session, args.instance, far.pause)
            verbs.made = made
            frames = Frames(spool, args.session, args.instance, far)
            try:
                far_session._serve(verbs, frames, far)
            except far_channel.Ended:
                frames.release()
                verbs.tidy(lambda: True)
            finally:
                frames.release()
        except far_channel.Ended:
            return

    # ---- hosts.Channel -----------------------------------------------------------------------

    def write(self, data: bytes | memoryview) -> None:
        if self.broken or self._login.down:
            raise Unreachable("the net is down")
        fault = self._login.fault()
        if fault is not None:
            self.broken = True
            if fault != "lost":
                self._far.inbox += data
            self.late = fault == "late"
            if fault == "mute":
                self._work()
            if fault == "lost":
                self.actor.kill()
            raise RemoteTimeout(f"{fault}: nothing came")
        self._far.inbox += data

    def read(self, n: int) -> bytes:
        while not self._far.outbox:
            if self.broken or self._login.down:
                raise RemoteError("the connection is lost")
            if self.actor.over:
                return b""
            if self._work() == "input" and not self._far.outbox:
                self._login.system.now += SILENCE_S
                raise RemoteTimeout("nothing came")
        data = bytes(self._far.outbox[:n])
        del self._far.outbox[:n]
        return data

    def readinto(self, view: memoryview) -> int:
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def _work(self) -> str:
        """Let the far end run to its next stop; where steps are used up, so are ours."""
        while True:
            why = self.actor.resume()
            if why == "sleep":
                self._login.system.now = max(self._login.system.now, self.actor.wake)
                continue
            if why != "steps":
                return why
            me = current()
            assert me is not None
            me.stop("steps")

    def set_timeout(self, seconds: float) -> None:
        """Nothing takes time."""

    def stderr_tail(self) -> bytes:
        return b""

    def finish(self) -> int | None:
        return 1

    def close(self) -> None:
        """The far end sees the end of its input once it has read what came."""
        self.broken = self._far.ended = True
        me = current()
        if me is not None and not (me.dead or self.late or self._login.down):
            self._work()


class Login:
    """hosts.Host for the simulated cluster."""

    name = "cluster"

    def __init__(self, net: Net, system: System) -> None:
        self._net, self.system = net, system
        self.logins = self.channels = 0

    @property
    def down(self) -> bool:
        return self._net.down

    def fault(self) -> str | None:
        return self._net.fault()

    def log_in(self) -> None:
        """Nothing happens before the first channel."""

    def open(self, command: str) -> FarEnd:
        if self.down:
            raise Unreachable("the net is down")
        words = shlex.split(shlex.split(command)[-1])
        mode = words[words.index("--workspace") - 1]
        argv = {words[n][2:]: words[n + 1] for n in range(len(words)) if words[n].startswith("--")}
        self.logins = 1
        self.channels += 1
        far = FarEnd(self, argv, mode)
        self._net.far_ends.append(far)
        return far

    def close(self) -> None:
        """Every channel is closed by who opened it."""


class Net:
    """What is between the service hosts and the cluster."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.down = False
        self.faults: dict[str, tuple[int, str]] = {}
        """Of a service host: after so many messages, which fault."""
        self.far_ends: list[FarEnd] = []

    def fault(self) -> str | None:
        """Return what happens to a message of this actor's host."""
        me = current()
        if me is None or me.host not in self.faults:
            return None
        left, kind = self.faults[me.host]
        if left > 0:
            self.faults[me.host] = (left - 1, kind)
            return None
        del self.faults[me.host]
        return kind

    def late(self) -> list[FarEnd]:
        """Return the far ends whose near end has gone and that are still there."""
        return [far for far in self.far_ends if far.broken and not far.actor.over]


def logins_are_simulated(patch: Any, net: Net) -> None:
    """Let passes log in over this net; `patch` is pytest's monkeypatch."""

    def connect(remote: object, inherit: object = ()) -> Login:
        return Login(net, net.system)

    patch.setattr(hosts, "connect", connect)
    patch.setattr(sending, "threading", SimpleNamespace(RLock=Turns, Condition=lambda lock: lock))
    for module, kind in ((sending, Coroutine), (access, Sync), (session, Idle)):
        patch.setattr(module, "threads", SimpleNamespace(start=kind.begun))
