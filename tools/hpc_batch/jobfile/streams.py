"""What a job wrote to stdout and stderr, as text.

Bytes that are not UTF-8 appear as the four characters backslash, x and two digits, so that every
reader of an answer gets the same text. A long stream keeps its head and its tail, because that is
where programs say what they are and why they died.
"""

from __future__ import annotations


def decode(data: bytes) -> str:
    r"""Return bytes as text; undecodable ones appear as the four characters \xNN."""
    return data.decode("utf-8", "backslashreplace")


def cut(head: bytes, tail: bytes, total: int) -> str:
    """Return the text of a stream of `total` bytes, of which its head and tail are at hand.

    What is missing between them is marked. Head and tail may overlap; no character is cut in two.
    """
    tail = tail[max(0, len(head) + len(tail) - total) :]
    if len(head) + len(tail) >= total:
        return decode(head + tail)
    head, tail = _whole_end(head), _whole_start(tail)
    missing = total - len(head) - len(tail)
    before = decode(head)
    newline = "\n" if before and not before.endswith("\n") else ""
    return f"{before}{newline}[cut: {missing} of {total} bytes left out here]\n{decode(tail)}"


def _whole_end(head: bytes) -> bytes:
    """Return a head without a character at its end whose rest is missing."""
    for length in range(1, min(4, len(head) + 1)):
        byte = head[-length]
        if byte < 0x80:
            break
        if byte >= 0xC0:
            needed = 2 + (byte >= 0xE0) + (byte >= 0xF0)
            return head[:-length] if needed > length else head
    return head


def _whole_start(tail: bytes) -> bytes:
    """Return a tail without the rest of a character whose beginning is missing."""
    start = 0
    while start < min(3, len(tail)) and 0x80 <= tail[start] < 0xC0:
        start += 1
    return tail[start:]
