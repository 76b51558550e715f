"""The kinds of values that a configuration holds: each turns text into a value.

A kind raises ValueError with the second half of a sentence ("must be ..."); who reads the file puts
the key and the line in front of it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Sequence

LONGEST_S = 3650 * 86400
"""Ten years: longer durations are typing errors."""

_COMPOUND = re.compile(r"(?:([0-9]{1,9})d)?(?:([0-9]{1,9})h)?(?:([0-9]{1,9})m)?(?:([0-9]{1,9})s)?")
_CLOCK = re.compile(r"([0-9]{1,6}):([0-5][0-9]):([0-5][0-9])")
_SIZE = re.compile(r"([0-9]{1,15})\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@dataclass(frozen=True)
class Kind:
    """How the text of a key becomes a value."""

    name: str
    """What the reference page says may stand there."""
    parse: Callable[[str], Any]
    """Text to value; raises ValueError with a sentence that begins with a verb."""


def closest(word: str, known: Sequence[str]) -> str:
    """Return ", did you mean '...'?" for the nearest known word, or nothing."""
    from difflib import get_close_matches  # only for what is wrong

    near = get_close_matches(word.lower(), known, n=1, cutoff=0.6)
    return f", did you mean '{near[0]}'?" if near else ""


def _text(text: str) -> str:
    if "\n" in text:
        raise ValueError("must be one line")
    if _CONTROL.search(text):
        raise ValueError("must not hold control characters")
    return text


def _lines(text: str) -> str:
    if _CONTROL.search(text):
        raise ValueError("must not hold control characters")
    return text


def _word(text: str) -> str:
    _text(text)
    if text.startswith("-"):
        # It becomes an argument of ssh or of the submit command: "-oProxyCommand=..." is an attack.
        raise ValueError("must not begin with '-'")
    if any(c.isspace() for c in text):
        raise ValueError("must be one word (comments stand on lines of their own)")
    return text


def _words(text: str) -> tuple[str, ...]:
    return tuple(_word(word) for word in text.replace(",", " ").split())


def _arguments(text: str) -> tuple[str, ...]:
    _lines(text)
    try:
        import shlex

        return tuple(shlex.split(text))
    except ValueError as error:
        raise ValueError(f"cannot be split into arguments: {str(error).lower()}") from None


def _path(text: str) -> Path:
    _text(text)
    try:
        path = Path(text).expanduser()
    except RuntimeError:
        raise ValueError("names a home directory that is not known") from None
    if not path.is_absolute():
        raise ValueError("must be an absolute path, or begin with '~/'")
    return path


def _paths(text: str) -> tuple[Path, ...]:
    return tuple(_path(part.strip()) for part in re.split("[\n:]", text) if part.strip())


def _fingerprint(text: str) -> str:
    if not re.fullmatch(r"SHA256:[A-Za-z0-9+/]{43}", text):
        raise ValueError("must look like 'SHA256:...', as 'ssh-keygen -lf' prints a fingerprint")
    return text


def _size(text: str) -> int:
    found = _SIZE.fullmatch(text)
    if not found:
        raise ValueError("must be a number of bytes, as in 4096, 256K, 100M, 20G or 1T")
    return int(found[1]) << (10 * " KMGT".index(found[2].upper() or " "))


def _gigabytes(text: str) -> int:
    found = re.fullmatch(r"([0-9]{1,6})\s*(?:G|GB|GiB)?", text, re.IGNORECASE)
    if not found or int(found[1]) == 0:
        raise ValueError("must be a whole number of GB, as in 32")
    return int(found[1])


def _yes_or_no(text: str) -> bool:
    if text.lower() in ("yes", "true", "on", "1"):
        return True
    if text.lower() not in ("no", "false", "off", "0"):
        raise ValueError("must be 'yes' or 'no'")
    return False


def _seconds(text: str, bare_unit_s: int) -> int:
    if re.fullmatch("[0-9]{1,9}", text):
        seconds = int(text) * bare_unit_s
    elif clock := _CLOCK.fullmatch(text):
        seconds = int(clock[1]) * 3600 + int(clock[2]) * 60 + int(clock[3])
    elif text and (parts := _COMPOUND.fullmatch(text.replace(" ", ""))):
        days, hours, minutes, rest = (int(part or 0) for part in parts.groups())
        seconds = days * 86400 + hours * 3600 + minutes * 60 + rest
    else:
        raise ValueError("must be a duration, as in 90s, 30m, 8h, 1d, 1h30m or 08:00:00")
    if seconds > LONGEST_S:
        raise ValueError("is longer than ten years")
    return seconds


def duration(least_s: int, *, bare_unit_s: int = 1) -> Kind:
    """Return the kind of durations of at least `least_s`; a bare number counts `bare_unit_s`."""

    def parse(text: str) -> int:
        seconds = _seconds(text, bare_unit_s)
        if seconds < least_s:
            raise ValueError(f"must be at least {least_s} s")
        return seconds

    return Kind("duration" if bare_unit_s == 1 else "duration (a bare number: minutes)", parse)


def count(least: int, most: int) -> Kind:
    """Return the kind of whole numbers from `least` to `most`."""

    def parse(text: str) -> int:
        if not re.fullmatch("[0-9]{1,9}", text) or not least <= int(text) <= most:
            raise ValueError(f"must be a whole number from {least} to {most}")
        return int(text)

    return Kind("number", parse)


def choice(*words: str) -> Kind:
    """Return the kind of a word out of a list."""

    def parse(text: str) -> str:
        word = text.lower()
        if word not in words:
            listed = ", ".join(words)
            raise ValueError(f"must be one of {listed}{closest(word, words)}")
        return word

    return Kind(" · ".join(f"`{word}`" for word in words), parse)


TEXT = Kind("text", _text)
LINES = Kind("lines of shell", _lines)
WORD = Kind("word", _word)
WORDS = Kind("words", _words)
ARGUMENTS = Kind("arguments, quoted as in a shell", _arguments)
PATH = Kind("absolute path", _path)
PATHS = Kind("absolute paths, one per line or separated by `:`", _paths)
FINGERPRINT = Kind("fingerprint", _fingerprint)
SIZE = Kind("size", _size)
GIGABYTES = Kind("GB", _gigabytes)
YES_OR_NO = Kind("`yes` · `no`", _yes_or_no)
