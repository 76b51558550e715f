"""Actors: real code that runs in turns, so that a test decides what happens in which order.

An actor is a function in a thread of its own, but only one thread ever runs: whoever resumes an
actor waits until it stops again. It stops before an effect when the steps it was given are used up,
where it would sleep, where it waits for input, and at its end. Stopped, it may be killed: the
effect that it stands before never happens, and nothing after it.

Threads that the code under test starts become actors of the same kind (`Sync`, `Coroutine`), so
that a story told twice is the same story.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

_here = threading.local()


class Killed(BaseException):
    """SIGKILL, as far as memory goes."""


class Steps:
    """How many effects may happen before everybody stops; None: as many as they like."""

    def __init__(self) -> None:
        self.left: int | None = None
        self.count = 0
        """Effects so far."""


class Actor:
    """A function that runs while somebody resumes it."""

    def __init__(self, steps: Steps, host: str, function: Callable[[], Any]) -> None:
        self.steps, self.host = steps, host
        self.over = self.dead = False
        self.result: Any = None
        self.error: BaseException | None = None
        self.why = "new"
        """Why it stands: new, steps, sleep, input, over."""
        self.wake = 0.0
        """When it wants to go on, by the simulated clock, where it sleeps."""
        self._go, self._stands = threading.Semaphore(0), threading.Semaphore(0)
        self._function = function
        self._thread: threading.Thread | None = None

    def resume(self) -> str:
        """Let it run to its next stop, and return why it stands there."""
        if self.over:
            return "over"
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()
        else:
            self._go.release()
        self._stands.acquire()
        return self.why

    def kill(self) -> None:
        """End it where it stands."""
        self.dead = True
        if self._thread is None:
            self.over, self.why = True, "over"
        while not self.over:
            self.resume()

    def stop(self, why: str) -> None:
        """Stand still, called by its own code. Raises Killed."""
        if self.dead:
            raise Killed
        self.why = why
        self._stands.release()
        self._go.acquire()
        if self.dead:
            raise Killed

    def effect(self) -> None:
        """Stand before an effect where no steps are left. Raises Killed."""
        if self.dead:
            raise Killed
        if self.steps.left is not None:
            while self.steps.left is not None and self.steps.left <= 0:
                self.stop("steps")
            if self.steps.left is not None:
                self.steps.left -= 1
        self.steps.count += 1

    def _run(self) -> None:
        _here.actor = self
        try:
            self.result = self._function()
        except Killed:
            pass
        except BaseException as error:
            self.error = error
        self.over, self.why = True, "over"
        self._stands.release()


def current() -> Actor | None:
    """Return the actor of this thread; None in the test's own."""
    return getattr(_here, "actor", None)


class Sync:
    """A thread that does its work where it is started."""

    def __init__(self, target: Callable[..., Any], args: tuple[Any, ...] = (), **more: Any) -> None:
        self._work = lambda: target(*args)

    @classmethod
    def begun(cls, work: Callable[..., Any], name: str, *args: Any) -> Sync:
        """Start one, as the rooms of threads do."""
        thread = cls(work, args, name=name)
        thread.start()
        return thread

    def start(self) -> None:
        self._work()

    def join(self, timeout: float | None = None) -> None:
        """It has ended."""


class Idle(Sync):
    """A thread that never comes to do anything."""

    def start(self) -> None:
        """Nothing happens."""


class Coroutine(Sync):
    """A thread that runs while another waits for it (`Turns`); it stops for want of input."""

    def start(self) -> None:
        me = current()
        assert me is not None
        self.actor = Actor(me.steps, me.host, self._work)
        me.__dict__.setdefault("threads", []).append(self.actor)

    def join(self, timeout: float | None = None) -> None:
        while not self.actor.over:
            self.actor.resume()


class Turns:
    """A condition whose waiting lets the threads of this actor run."""

    def __enter__(self) -> Turns:
        return self

    def __exit__(self, *error: object) -> None:
        """Nobody else runs."""

    def notify_all(self) -> None:
        """Whoever waits looks by itself."""

    def wait_for(self, come: Callable[[], bool]) -> bool:
        me = current()
        assert me is not None
        while not come():
            alive = [actor for actor in me.__dict__.get("threads", ()) if not actor.over]
            assert alive, "waits for a thread that has ended"
            if alive[-1].resume() == "steps":
                me.stop("steps")
        return True
