"""The description: one job in machine form, `jobs/J/description.json`, with its script in it.

The service host writes it, the runner reads it. It is checked once, here; what passes is safe to
act on: names are plain base names, numbers are in range, and nothing else in it becomes a path.

Names of inputs and outputs are text with surrogate escapes (`files.to_bytes`), because names of
files are bytes. Inputs lie beside it as `in0`, `in1`, … in the order given here.

Protocol 1 kept the script in a file of its own, `script`, and inputs in a folder, as `in/0`, …; a
job that was described so is laid out so, and runs so.
"""

import re
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

from hpc_cluster import ACCEPTED, PROTOCOL, files
from hpc_cluster.errors import DescriptionError
from hpc_cluster.ticket import instance_of, is_job

NAME = "description.json"
"""Its name in a job's folder."""

APART = 1
"""The protocol that kept the script and the inputs apart."""

LAYOUTS = ("flat", "split")
"""flat: inputs and outputs in work/; split: in work/input/ and work/output/."""

RESERVED = ("input", "output")
"""Base names that mean folders in both layouts."""

NAME_BYTES = 255
"""The longest name of a file on the usual file systems (NAME_MAX)."""


class NewerProtocol(DescriptionError):
    """A newer release wrote it: a pilot leaves such a job to one that runs newer code."""


class Input(NamedTuple):
    """One input of a job."""

    key: str
    """Its key in the job file."""
    name: str
    """Its base name."""
    size: int
    """Its length in bytes."""


class Output(NamedTuple):
    """One declared output of a job."""

    key: str
    name: str


class Description(NamedTuple):
    """One job."""

    job: str
    """J."""
    name: str
    """What people call it: the name of its drop."""
    word: str
    """The word in the script that stands for the attempt's folder (`aN`)."""
    layout: str
    """One of LAYOUTS."""
    writable_inputs: bool
    """Inputs are copies of the job's own instead of read-only links."""
    inputs: Tuple[Input, ...]
    outputs: Tuple[Output, ...]
    time_limit: Optional[int]
    """Seconds that the job may run; None: as long as its pilot."""
    grace_s: int
    """Seconds between the request to stop and the end."""
    attempts: int
    """So many pilots may die on it."""
    starts: int
    """So often it may be started."""
    text: Optional[bytes] = None
    """The script, with the word in it; None: it lies apart, and so do the inputs."""

    @property
    def needs_s(self) -> float:
        """So much walltime it may need: its time limit, if it has one, and its grace."""
        return float((self.time_limit or 0) + self.grace_s)

    def input_path(self, folder: bytes, number: int) -> bytes:
        """Return where an input lies in the job's folder."""
        if self.text is None:
            return files.join(folder, "in", str(number))
        return files.join(folder, f"in{number}")


def whole(tree: Dict[str, Any], script: bytes) -> Dict[str, Any]:
    """Return a description as it is kept: with its script, but for one that keeps it apart."""
    if tree.get("protocol") == APART:
        return tree
    return dict(tree, text=files.from_bytes(script))


def script(found: Description, folder: bytes, look: Callable[[bytes], bytes]) -> bytes:
    """Return a job's script; `look` reads it where it lies apart. Raises OSError."""
    return look(files.join(folder, "script")) if found.text is None else found.text


def read(path: bytes) -> Description:
    """Read and check a description. Raises OSError, DescriptionError."""
    try:
        tree = files.read_json(path)
    except ValueError as error:
        raise DescriptionError(f"the description is not JSON: {error}") from error
    return parse(tree)


def parse(tree: Any) -> Description:
    """Return the description in a parsed JSON document. Raises DescriptionError, all at once."""
    if not isinstance(tree, dict):
        raise DescriptionError("the description is not a JSON object")
    number = tree.get("protocol")
    if number not in ACCEPTED:
        text = f"the description has protocol {number!r}, this program speaks {PROTOCOL}"
        newer = isinstance(number, int) and number > PROTOCOL
        raise NewerProtocol(text) if newer else DescriptionError(text)
    problems: List[str] = []
    job = _text(tree, "id", problems)
    if not is_job(job):
        problems.append(f"id {job!r} is no job's id")
    elif tree.get("instance") != instance_of(job):
        problems.append(f"instance {tree.get('instance')!r} is not the one in the id")
    word = _text(tree, "word", problems)
    if not re.fullmatch("hpcb[0-9a-f]{16}", word):
        problems.append(f"word {word!r} is not hpcb and 16 hexadecimal digits")
    layout = _text(tree, "layout", problems)
    if layout not in LAYOUTS:
        problems.append(f"layout {layout!r} is not one of {', '.join(LAYOUTS)}")
    if not isinstance(tree.get("writable_inputs"), bool):
        problems.append("writable_inputs is not true or false")
    inputs = tuple(
        Input(_text(i, "key", problems), _name(i, problems), _count(i, "bytes", problems, 0))
        for i in _items(tree, "inputs", problems)
    )
    outputs = tuple(
        Output(_text(o, "key", problems), _name(o, problems))
        for o in _items(tree, "outputs", problems)
    )
    _distinct([i.name for i in inputs], [o.name for o in outputs], layout, problems)
    limit = None if tree.get("time_limit") is None else _count(tree, "time_limit", problems, 1)
    found = Description(
        job=job,
        name=_text(tree, "name", problems),
        word=word,
        layout=layout,
        writable_inputs=tree.get("writable_inputs") is True,
        inputs=inputs,
        outputs=outputs,
        time_limit=limit,
        grace_s=_count(tree, "grace_s", problems, 0),
        attempts=_count(tree, "attempts", problems, 1),
        starts=_count(tree, "starts", problems, 1),
        text=None if number == APART else _script(tree, problems),
    )
    if problems:
        raise DescriptionError("the description is bad: " + "; ".join(problems))
    return found


def _text(tree: Dict[str, Any], key: str, problems: List[str]) -> str:
    value = tree.get(key)
    if isinstance(value, str):
        return value
    problems.append(f"{key} is missing or no text")
    return ""


def _script(tree: Dict[str, Any], problems: List[str]) -> bytes:
    text = _text(tree, "text", problems)
    try:
        return files.to_bytes(text)
    except UnicodeEncodeError:
        problems.append("text stands for no bytes")
        return b""


def _count(tree: Dict[str, Any], key: str, problems: List[str], least: int) -> int:
    value = tree.get(key)
    if isinstance(value, int) and not isinstance(value, bool) and value >= least:
        return value
    problems.append(f"{key} is missing or no whole number of at least {least}")
    return least


def _items(tree: Dict[str, Any], key: str, problems: List[str]) -> List[Dict[str, Any]]:
    value = tree.get(key)
    if isinstance(value, list) and all(isinstance(item, dict) for item in value):
        return value
    problems.append(f"{key} is missing or no list of objects")
    return []


def _name(tree: Dict[str, Any], problems: List[str]) -> str:
    """Return a base name that is safe to make a path with."""
    name = _text(tree, "name", problems)
    try:
        data = files.to_bytes(name)
    except UnicodeEncodeError:
        problems.append(f"the name {name!r} stands for no bytes")
        return ""
    if not data or len(data) > NAME_BYTES or b"/" in data or b"\0" in data or data in (b".", b".."):
        problems.append(f"{name!r} is no base name of a file")
    elif name in RESERVED:
        problems.append(f"the name {name!r} is reserved")
    return name


def _distinct(
    inputs: Sequence[str], outputs: Sequence[str], layout: str, problems: List[str]
) -> None:
    """Files that share a folder must differ in name."""
    groups = [list(inputs) + list(outputs)] if layout == "flat" else [list(inputs), list(outputs)]
    for group in groups:
        for name in sorted({name for name in group if group.count(name) > 1}):
            problems.append(f"two files are called {name!r}")
