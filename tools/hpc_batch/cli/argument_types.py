"""What arguments mean: text to values, for argparse; and the option that many verbs have."""

from __future__ import annotations

import argparse
import re
from datetime import datetime, timedelta, timezone

from hpc_batch.crontab import PERIODS_MIN

UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def duration_s(text: str) -> float:
    """Return a length of time in seconds: `90`, `30m`, `1h30m`, `4d`."""
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhdw])", text)
    if parts and "".join(n + unit for n, unit in parts) == text:
        return sum(float(number) * UNITS_S[unit] for number, unit in parts)
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no length of time; write 90s, 30m, 6h or 4d")


def duration(text: str) -> timedelta:
    """Return a length of time."""
    try:
        return timedelta(seconds=duration_s(text))
    except OverflowError:
        raise argparse.ArgumentTypeError(f"{text!r} is too long") from None


def moment(text: str) -> datetime:
    """Return a moment: `2026-11-21T06:00` (local time, or with an offset), or `6h` from now."""
    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone(timezone.utc)
    except ValueError:
        pass
    try:
        return datetime.now(timezone.utc) + duration(text)
    except (argparse.ArgumentTypeError, OverflowError):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no moment; write 2026-11-21T06:00 or 6h"
        ) from None


def pair(text: str) -> tuple[str, str]:
    """Return KEY=VALUE as two."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return key, value


def setting(text: str) -> tuple[tuple[str, str], str]:
    """Return SECTION.KEY=VALUE as ((section, key), value)."""
    place, equals, value = text.partition("=")
    section, dot, key = place.partition(".")
    if not (equals and dot and section and key):
        raise argparse.ArgumentTypeError(f"{text!r} is not SECTION.KEY=VALUE")
    return (section, key), value


def period_min(text: str) -> int:
    """Return a period that cron can keep, in minutes."""
    seconds = duration_s(text)
    if seconds / 60 not in PERIODS_MIN:
        known = ", ".join(f"{minutes}m" for minutes in PERIODS_MIN)
        raise argparse.ArgumentTypeError(f"cron cannot keep {text!r}; it can keep {known}")
    return int(seconds // 60)


def add_dry_run(parser: argparse.ArgumentParser) -> None:
    """Let a verb be tried without changing anything."""
    parser.add_argument(
        "-n", "--dry-run", action="store_true", help="change nothing, print what would be done"
    )
