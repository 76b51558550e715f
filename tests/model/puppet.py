"""Puppets: real functions that stop before each effect that counts, until they are told to go on.

A puppet runs in a thread of its own, and only while its driver waits, so that nothing happens at
the same time. Stopped before an effect, it may go on, be killed (the effect never happens, and
nothing after it), or be told that the effect failed: not done, or done and reported as an error.
The effects are calls of the operating system, replaced for the length of a test; calls by anybody
who is no puppet pass.
"""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

CALLS = ("rename", "unlink", "link", "open", "mkdir", "ftruncate", "pwrite")

Namer = Callable[[str, tuple[Any, ...]], "str | None"]

_here = threading.local()


class Killed(BaseException):
    """SIGKILL, as far as memory goes."""


class Puppet:
    """A function that runs from effect to effect."""

    def __init__(self, function: Callable[[], Any], namer: Namer) -> None:
        self.at: str | None = None
        """The effect it stands before; None when it is over."""
        self.over = False
        self.result: Any = None
        self.error: BaseException | None = None
        self._namer = namer
        self._order = "go"
        self._may_go, self._stands = threading.Semaphore(0), threading.Semaphore(0)
        self._last: str | None = None
        threading.Thread(target=self._run, args=(function,), daemon=True).start()
        self._stands.acquire()

    def go(self, order: str = "go") -> None:
        """Let it do its effect (go, fail, done but fail) or kill it; returns at the next stop."""
        self._order = order
        self._may_go.release()
        self._stands.acquire()

    def _run(self, function: Callable[[], Any]) -> None:
        _here.puppet = self
        try:
            self.result = function()
        except Killed:
            pass
        except BaseException as error:
            self.error = error
        self.at, self.over = None, True
        self._stands.release()

    def stop(self, name: str) -> str:
        """Stand before an effect; returns the order. Raises Killed."""
        self.at = name
        self._stands.release()
        self._may_go.acquire()
        if self._order == "kill":
            raise Killed
        return self._order

    def call(self, name: str, function: Callable[..., Any], args: Any, keys: Any) -> Any:
        """Make a call of the operating system, after a stop where it counts.

        Effects of the same name in a row are one.
        """
        effect = self._namer(name, args)
        if effect is None or effect == self._last:
            return function(*args, **keys)
        order = self.stop(effect)
        self._last = effect
        if order == "fail":
            self._last = None  # what is tried again is another effect
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), args[0])
        value = function(*args, **keys)
        if order == "done but fail":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), args[0])
        return value


def current() -> Puppet:
    """Return the puppet of this thread."""
    return _here.puppet  # type: ignore[no-any-return]


def attach(monkeypatch: Any) -> None:
    """Let every puppet's calls be counted; its thread cannot set signals, which all do alike."""
    monkeypatch.setattr(signal, "signal", lambda *args: None)
    for name in CALLS:
        monkeypatch.setattr(os, name, _counted(name, getattr(os, name)))


def _counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **keys: Any) -> Any:
        puppet = getattr(_here, "puppet", None)
        if puppet is None or keys.get("dir_fd") is not None:
            return function(*args, **keys)
        return puppet.call(name, function, args, keys)

    return call
