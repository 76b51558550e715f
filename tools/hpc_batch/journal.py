"""A journal: the one file of a job in the state folder, `state/jobs/J`, a line for each step.

    CRC32 {"papers": {"answer": …}, "record": {…}}

A line holds the whole record as it is from then on, and the papers that the step wrote (the job
file as it was read, the description, the script, the answer); older lines keep older papers. It
ends with a newline and begins with the checksum of its JSON in eight hexadecimal digits, so that of
a line which a kill, a full disk or a power cut has left in part nothing is believed: the last whole
line counts, and the next one takes the place of whatever stands behind it.

A step is one write and one sync, and makes no name and removes none: the cost of a file system's
names is paid once for a job.
"""

from __future__ import annotations

import contextlib
import errno
import json
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

from hpc_cluster import files

PAPERS = ("job", "script", "description", "answer")
"""What is written along with records."""

NEW = ".new"
"""Ends the name of a journal that is being written anew, shorter."""


class Damaged(Exception):
    """A journal, or a paper in it, is missing, cut or overwritten."""

    def __init__(self, path: str, why: str = "") -> None:
        super().__init__(f"{path} is damaged" + (f" ({why})" if why else ""))
        self.path = path


def line(record: Mapping[str, Any], papers: Mapping[str, Any]) -> bytes:
    """Return the line of a step."""
    content = files.to_json({"papers": papers, "record": record})
    return b"%08x %s" % (checksum(content), content)


def checksum(content: bytes) -> int:
    """Return the checksum of what follows it in a line."""
    return zlib.crc32(content)


def read(path: str) -> bytes:
    """Return what is in a journal. Raises Damaged where it is no file, and OSError."""
    try:
        return files.twice(files.read_bytes, path)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ELOOP):
            raise Damaged(path, "it is no file") from None
        raise


def record_in(path: str) -> Mapping[str, Any]:
    """Return the record in a journal. Raises Damaged, OSError."""
    return last(read(path), path)[0]


def papers_in(path: str) -> dict[str, Any]:
    """Return the newest of each of a job's papers. Raises Damaged, OSError."""
    data = read(path)
    found = {}
    for name in PAPERS:
        with contextlib.suppress(Damaged):
            found[name] = paper(data, name, path)
    return found


def last(data: bytes, path: str) -> tuple[Mapping[str, Any], int]:
    """Return the record of the last whole line, and where that ends. Raises Damaged."""
    for content, end in _backwards(data):
        if content is not None:
            record: dict[str, Any] = json.loads(content)["record"]
            return record, end
    raise Damaged(path, "no line of it is whole")


def paper(data: bytes, name: str, path: str) -> Any:
    """Return the newest of a job's papers that has this name.

    Raises Damaged when there is none, and when a damaged line may have held a newer one.
    """
    whole = False
    for content, _ in _backwards(data):
        if content is None and whole:
            break
        whole = whole or content is not None
        if content is None or content.startswith(b'{"papers": {},'):
            continue
        value = json.loads(content)["papers"].get(name)
        if value is not None:
            return value
    raise Damaged(path, f"its {name}")


def _backwards(data: bytes) -> Iterator[tuple[bytes | None, int]]:
    """Yield the JSON of each line, the last one first, and where it ends; None: it is not whole."""
    end = data.rfind(b"\n") + 1
    while end:
        begin = data.rfind(b"\n", 0, end - 1) + 1
        known, _, content = data[begin:end].partition(b" ")
        yield content if known == b"%08x" % checksum(content) else None, end
        end = begin
