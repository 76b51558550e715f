"""The node `job:` of an answer: what a `.finished` file says beyond the description itself.

Every answer has the same fields in the same order, whatever happened, so that a reader never has to
ask whether one is there.
"""

from __future__ import annotations

from typing import Any, Mapping

from hpc_batch.jobfile import decode
from hpc_batch.record import Record

Node = dict[str, Any]


def make(
    record: Record, reason: str, message: str, *, seen: Mapping[str, Any] | None = None
) -> Node:
    """Return an answer's node.

    `seen` adds what is known beyond that: rc, stdout, stderr, start, end, attempts, node, pilot,
    outputs. Only the reason `completed` is the status `ok`.
    """
    known: Node = {
        "status": "ok" if reason == "completed" else "error",
        "message": message,
        "stderr": "",
        "stdout": "",
        "rc": None,
        "reason": reason,
        "id": record.id,
        "start": None,
        "end": None,
        "attempts": 0,
        "node": None,
        "pilot": {"id": None, "native_id": None},
        "times": {},
        "outputs": {},
    }
    known.update(seen or {})
    known["times"] = times(record, known["start"], known["end"])
    return known


def times(record: Record, start: str | None, end: str | None) -> dict[str, str | None]:
    """Return the six times of an answer; `returned` is filled in when the answer is written."""
    found: dict[str, str | None] = {
        name: record.times.get(name) for name in ("dropped", "accepted", "staged")
    }
    return {**found, "started": start, "ended": end, "returned": None}


def from_result(
    result: Mapping[str, Any], stdout: str, stderr: str, with_outputs: bool
) -> dict[str, Any]:
    """Return what a runner's `result.json` and the two streams add to a node."""
    seen = {
        "rc": result.get("rc"),
        "start": result.get("start"),
        "end": result.get("end"),
        "attempts": result.get("attempt", 0),
        "node": result.get("node"),
        "pilot": {"id": result.get("pilot"), "native_id": result.get("native_id")},
        "stdout": stdout,
        "stderr": stderr,
    }
    if with_outputs:
        seen["outputs"] = {
            key: {"size": o["bytes"], "sha256": o["sha256"]}
            for key, o in result.get("outputs", {}).items()
        }
    return seen


def died_message(pilots: list[dict[str, Any]]) -> str:
    """Return the sentence for a job whose pilots kept dying.

    It holds no count: a job may have been started without its pilot having died.
    """
    last = pilots[-1] if pilots else {}
    where = ", ".join(
        str(part)
        for part in (
            f"node {last['host']}" if last.get("host") else None,
            f"{last.get('batch', 'pilot')} {last['native_id']}" if last.get("native_id") else None,
            last.get("trouble"),
        )
        if part
    )
    return (
        "its pilots died while they ran this job, as often as it is tried"
        + (f" (last: {where})" if where else "")
        + "; the job may need more memory or time than the pilot has, or kill its own pilot"
    )


def without_streams(node: Node, size: int) -> Node:
    """Return the node with each stream cut to so many characters, for a disk that is full."""
    cut = dict(node)
    for name in ("stdout", "stderr"):
        text = cut[name]
        if len(text) > size:
            cut[name] = f"{text[:size]}\n[cut: there was no room on the disk for the rest]\n"
    return cut


def text_of(data: bytes) -> str:
    """Return bytes of a stream as text; undecodable ones appear as `\\xNN`."""
    return decode(data)
