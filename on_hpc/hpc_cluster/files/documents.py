"""Documents: values as JSON, in a file and for one."""

import json
from typing import Any, Dict, Optional

from hpc_cluster.files.looking import Path, read_bytes

_ENCODER = json.JSONEncoder(sort_keys=True, check_circular=False)
"""json.dumps would make one for each value."""


def read_json(path: Path, limit: int = 64 << 20) -> Any:
    """Return the JSON document in a file. Raises OSError, ValueError."""
    return json.loads(read_bytes(path, limit).decode("utf-8"))


def to_json(value: Any) -> bytes:
    """Return a value as one line of ASCII JSON, sorted, with a newline."""
    return (_ENCODER.encode(value) + "\n").encode("ascii")


def merge(*parts: Optional[Dict[str, Any]]) -> Dict[str, Any]:
    """Return mappings laid over each other, later ones winning, None ones skipped."""
    result: Dict[str, Any] = {}
    for part in parts:
        result.update(part or {})
    return result
