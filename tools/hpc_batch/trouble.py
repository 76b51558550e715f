"""Trouble: what the operator has to know, told once when it begins to matter and once when it ends.

Cron mails whatever a pass prints, so a pass prints nothing while all is well, one message when a
trouble has lasted as long as its patience, and one when it is over. The ledger lives in
`state/trouble.json`; `hpc-batch status` shows it.
"""

from __future__ import annotations

from typing import Any

from hpc_batch.record import now
from hpc_batch.state import State


class Ledger:
    """Open troubles by name, kept between passes."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._open: dict[str, dict[str, Any]] = state.read("trouble.json") or {}
        self._seen: set[str] = set()
        self.code = 0
        """The pass's exit code so far."""
        self.messages: list[str] = []
        """What this pass has to print."""

    def note(
        self,
        what: str,
        message: str,
        patience_s: float = 0,
        *,
        code: int = 0,
        next_try: str | None = None,
    ) -> None:
        """Record that a trouble is there, and tell it once it has lasted `patience_s` seconds.

        The largest `code` becomes the pass's exit code; `next_try` is when what failed is tried
        again, UTC, where that is not the next pass.
        """
        self.code = max(self.code, code)
        entry = self._open.setdefault(what, {"since": now(), "told": False})
        entry.setdefault("at", self._state.elapsed.seconds())
        entry.update(message=message, next=next_try)
        self._seen.add(what)
        if not entry["told"] and self._lasts_s(entry) >= patience_s:
            entry["told"] = True
            self.messages.append(f"{message} (since {entry['since']})")

    def over(self, *whats: str) -> None:
        """Record that troubles have ended, and tell it where they had been told."""
        for what in list(whats):
            entry = self._open.pop(what, None)
            if entry is not None and entry["told"]:
                self.messages.append(f"over, since {now()}: {entry['message']}")

    def end(self, *lasting: str) -> None:
        """End what this pass did not see again; `lasting` troubles end only by `over`."""
        self.over(*(w for w in self._open if w not in self._seen and w not in lasting))

    def is_open(self, what: str) -> bool:
        """Tell whether a trouble was noted and is not over."""
        return what in self._open

    def lasts_s(self, what: str) -> float:
        """Return for how long a trouble has been open; 0 when it is not."""
        entry = self._open.get(what)
        return self._lasts_s(entry) if entry else 0.0

    def _lasts_s(self, entry: dict[str, Any]) -> float:
        return self._state.elapsed.age_s(entry.get("at"))

    def entries(self) -> list[dict[str, Any]]:
        """Return what `status` shows."""
        return [
            {
                "what": what,
                "since": entry["since"],
                "message": entry["message"],
                "next": entry.get("next"),
            }
            for what, entry in sorted(self._open.items())
        ]

    def save(self) -> None:
        """Keep the ledger for the next pass."""
        if self._open != (self._state.read("trouble.json") or {}):
            self._state.show("trouble.json", self._open)
