"""A value as one line of shell.

Values stand once, at the top of the rendered script; the body only refers to them. So this module
is the only one that ever sees a value's bytes, and the body can be checked without any.

A value never begins a new line of the script (a batch system could read it as a directive), and for
bash the result is printable text whatever the bytes are: `$'…'` with exactly three octal digits,
which, unlike literal bytes, no version of bash was seen to change. sh has no such quotes; there the
bytes stand between single quotes, and a line break is `$HPC_NL`.
"""

from __future__ import annotations

from typing import Sequence

PREFIX = "HPC_V_"
"""Begins the names of the variables; a template's own text must not hold it."""
NEWLINE_VARIABLE = "HPC_NL"
NEWLINE_LINES = b"HPC_NL='\n'\n"
"""Defines the line break, for sh, where a value needs it."""


def _single(text: bytes) -> bytes:
    return b"'" + text.replace(b"'", b"'\\''") + b"'"


def _printable(value: bytes) -> bool:
    try:
        return value.decode("utf-8").isprintable()
    except UnicodeDecodeError:
        return False


def quote(value: bytes, shell: str) -> bytes:
    """Return a word of `bash` or `sh` that is exactly this value, on one line."""
    if _printable(value):
        return _single(value)
    if shell == "bash":
        text = b"".join(
            b"\\" + bytes([c]) if c in b"\\'" else bytes([c]) if 32 <= c < 127 else b"\\%03o" % c
            for c in value
        )
        return b"$'" + text + b"'"
    return b'"$HPC_NL"'.join(_single(part) for part in value.split(b"\n"))


def assign(name: str, value: bytes, shell: str) -> bytes:
    """Return the line that gives a variable this value."""
    return f"{PREFIX}{name}=".encode("ascii") + quote(value, shell) + b"\n"


def assign_list(name: str, values: Sequence[bytes], shell: str) -> bytes:
    """Return the lines for a list: one array for bash, numbered variables for sh.

    The number stands first, because no parameter's name begins with a digit.
    """
    if shell == "bash":
        words = b" ".join(quote(value, shell) for value in values)
        return f"{PREFIX}{name}=(".encode("ascii") + words + b")\n"
    return b"".join(assign(f"{n}_{name}", value, shell) for n, value in enumerate(values, 1))


def refer_list(name: str, count: int, shell: str) -> str:
    """Return the words that are the elements of a list: nothing for an empty one."""
    if shell == "bash":
        return f'"${{{PREFIX}{name}[@]}}"' if count else ""
    return " ".join(f'"${{{PREFIX}{n}_{name}}}"' for n in range(1, count + 1))
