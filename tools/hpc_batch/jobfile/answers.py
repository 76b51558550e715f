"""The answer `NAME.job.finished` and the copy `NAME.job.submitted`, to and from bytes.

Both repeat the description and add one node of ours, `job:` or `hpc:`. What was no mapping is
answered with the node alone, which then holds the drop's text.
"""

from __future__ import annotations

import re
from typing import Any, Mapping

from hpc_batch.jobfile.nodes import ListNode, MapNode, Node, Scalar
from hpc_batch.jobfile.parsing import JOB_BYTES, OURS
from hpc_batch.jobfile.streams import cut
from hpc_batch.jobfile.tree import read
from hpc_batch.jobfile.writing import block, repeated

DROP_BYTES = 64 << 10
"""How much of an unreadable drop its answer repeats."""
ANSWER_BYTES = 64 << 20
ANSWER_NODES = 1_000_000

FIELDS = (
    *("status", "message", "stderr", "stdout", "rc", "reason", "id", "start", "end"),
    *("attempts", "node", "pilot", "times", "outputs", "drop"),
)
"""The order in the node `job:`; what else is given follows."""

_INT = re.compile(r"-?(?:0|[1-9][0-9]{0,18})")
_FLOAT = re.compile(r"-?(?:0|[1-9][0-9]{0,18})(?=[.eE])(?:\.[0-9]+)?(?:[eE][-+]?[0-9]{1,2})?")
_WORDS = {"null": None, "~": None, "": None, "true": True, "false": False}


def echo(data: bytes) -> str | None:
    """Return what an answer repeats of a drop, right or wrong; None when it is no mapping.

    Also None for what would not be YAML for every reader (duplicate keys, aliases, tags).
    """
    root, problems = read(data, JOB_BYTES)
    return echo_of(root) if isinstance(root, MapNode) and not problems else None


def echo_of(source: MapNode) -> str:
    """Return a description that was read as answers repeat it, without nodes of ours."""
    kept = tuple((k, v) for k, v in source.pairs if k.text not in OURS)
    return repeated(MapNode(kept, False, 1)) if kept else ""


def answer_text(
    description: str | None, node: Mapping[str, Any], drop_text: bytes | None = None
) -> bytes:
    """Return the text of an answer: the description, an `echo`, then the node `job:`.

    `drop_text` is what was dropped, for a drop that has no echo (`description` is None).
    """
    told = {name: node[name] for name in FIELDS if name in node}
    told.update({name: value for name, value in node.items() if name not in told})
    if drop_text is not None:
        told["drop"] = cut(drop_text[:DROP_BYTES], b"", len(drop_text))
    return _with_node(description, "job", told)


def submitted_text(description: str | None, node: Mapping[str, Any]) -> bytes:
    """Return the text of `.submitted`: the description, an `echo`, then the node `hpc:`."""
    return _with_node(description, "hpc", node)


def _with_node(description: str | None, name: str, node: Mapping[str, Any]) -> bytes:
    return ((description or "") + block({name: node})).encode("utf-8")


def read_answer(data: bytes) -> dict[str, Any]:
    """Return the content of an answer or of a `.submitted` copy.

    Plain whole numbers, decimal fractions, true, false and null have their value; everything else
    is text as it is written, dates too. Raises ValueError for what is no mapping in YAML.
    """
    root, problems = read(data, ANSWER_BYTES, ANSWER_NODES)
    if not isinstance(root, MapNode) or problems:
        why = "; ".join(str(problem) for problem in problems) or "it is no mapping"
        raise ValueError(f"this is no answer of hpc_batch: {why}")
    return {key.text: _valued(value) for key, value in root.pairs}


def _valued(node: Node) -> Any:
    if isinstance(node, ListNode):
        return [_valued(item) for item in node.items]
    if isinstance(node, MapNode):
        return {key.text: _valued(value) for key, value in node.pairs}
    return node.text if node.style else _number_or_text(node)


def _number_or_text(node: Scalar) -> Any:
    text = node.text
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text
