"""How P, the nonce of a pilot, travels in the name of its batch job.

Most batch systems print the name in their lists, whole, and nothing else that the submitter chose.
Where names may be long, P is appended to the name of the slot. Old PBS allows 15 characters and its
lists show no more: there the name is P alone, in base 32, behind two letters.
"""

import re
from typing import Optional

from hpc_cluster.batch import Request

ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
"""RFC 4648, in lower case."""

MARK = "hb"
"""Begins a short name: PBS wants a letter."""

DIGITS = 13
"""13 digits of 5 bits hold the 64 bits of P. len(MARK) + DIGITS <= 15."""

LONG = re.compile(r"hpcb[0-9a-f]{8}-(?:[0-9]+|x)-([0-9a-f]{16})\Z")
SHORT = re.compile(MARK + "[" + ALPHABET + "]{" + str(DIGITS) + r"}\Z")


def long_name(request: Request) -> str:
    """Return the name of the slot with P."""
    return f"{request.name}-{request.pilot}"


def from_long(name: str) -> Optional[str]:
    """Return the P that a long name carries; None for a job that is not ours."""
    match = LONG.search(name)
    return None if match is None else match.group(1)


def short_name(pilot: str) -> str:
    """Return P as a name of 15 characters."""
    number = int(pilot, 16)
    return MARK + "".join(ALPHABET[number >> 5 * n & 31] for n in reversed(range(DIGITS)))


def from_short(name: str) -> Optional[str]:
    """Return the P that a short name carries; None for a job that is not ours."""
    if not SHORT.match(name):
        return None
    number = 0
    for digit in name[len(MARK) :]:
        number = number << 5 | ALPHABET.index(digit)
    return f"{number:016x}" if number < 1 << 64 else None
