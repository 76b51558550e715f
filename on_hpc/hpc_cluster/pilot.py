"""A pilot, seen through its folder `pilots/P`.

    adopted.json   what follows from its slot or ticket, where it has no pilot.json
    pilot.json     what the queuer knows: slot, native id, when it was submitted
    runner.json    what the runner says: host, start, closing, closed, trouble, its jobs
    heartbeat      64 bytes, overwritten in place every 30 s by the runner
    code/          the code it runs, frozen when it was submitted: a checkout may be upgraded
    log            what it printed
    observed.NODE  what the observers of one node saw of its heartbeat
    dead.json      why and when it was found dead; then its tickets and its slot are taken away

Each file has one writer, and readers lay them over each other. Nobody believes a clock or an mtime:
an observer compares the content of the heartbeat with what it read before, by the monotonic clock
of its own node, in the same boot. An operator who sends a pilot away leaves dismissed.json.
"""

import os
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from hpc_cluster import PROTOCOL, batch, clock, durable, files
from hpc_cluster.spool import Spool
from hpc_cluster.ticket import is_random

BEAT_S = 30.0
"""A live runner writes its heartbeat so often."""

STILL_S = 120.0
"""A pilot that a complete list lacks is dead when its heartbeat stood still for so long.
STILL_S >= 4 * BEAT_S, so that one slow write is no death."""

LEASE_S = 600.0
"""A claim stands for so long without a heartbeat. LEASE_S >= 20 * BEAT_S; the runner kills its jobs
at LEASE_S / 2, long before anybody else may start them."""

READS = 5
"""A lease has run out only after so many readings."""

HEARTBEAT_BYTES = 64

PAPERS = ("adopted.json", "pilot.json", "runner.json", "dismissed.json", "dead.json")
"""What is known of a pilot; each file has one writer."""

LAUNCHER = b"""#!/usr/bin/env python3
\"\"\"The program that a pilot runs; see hpc_cluster/runner.py.\"\"\"

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from hpc_cluster.runner import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
"""
"""on_hpc/hpc_runner: it expects its package beside itself."""


PACKAGES = ("", "batch", "files")
"""This package and those in it: what a pilot needs of them is copied."""


class Observation(NamedTuple):
    """What the observers of this node know of one pilot, from seeing it several times."""

    still_s: float
    """The heartbeat stood still for so long."""
    reads: int
    """It was read so often since it last changed."""
    absent_s: float
    """Complete lists of the batch system lack the pilot for so long."""


def make(spool: Spool, pilot: str, info: Dict[str, Any]) -> None:
    """Make a pilot's folder with its frozen code, durably, before it is submitted."""
    folder = spool.pilot_folder(pilot)
    files.make_folder(folder)
    code = files.join(folder, "code")
    folders = _freeze(code)
    heartbeat = files.join(folder, "heartbeat")
    files.write_new(heartbeat, beat(0, pilot))
    durable.sync_files([heartbeat] + [files.join(f, n) for f in folders for n in _modules(f)])
    durable.sync_folders(folders)
    write(spool, pilot, info)
    durable.sync_folders([folder, spool.path("pilots")])


def adopt(spool: Spool, pilot: str, info: Dict[str, Any]) -> None:
    """Make a folder for a pilot that holds a ticket or a slot and has none; touch nothing in it."""
    folder = spool.pilot_folder(pilot)
    files.make_folder(folder)
    heartbeat = files.join(folder, "heartbeat")
    if not files.exists(heartbeat):
        files.write_new(heartbeat, beat(0, pilot))
    # RACE: whoever took the slot may write pilot.json just now, so this has a name of its own.
    write(spool, pilot, info, "adopted.json")
    durable.sync_folder(spool.path("pilots"))


def write(spool: Spool, pilot: str, info: Dict[str, Any], name: str = "pilot.json") -> None:
    """Replace one of the pilot's JSON files durably."""
    path, document = _document(spool, pilot, info, name)
    files.replace(path, document, f".{os.urandom(4).hex()}.new")


def tell(spool: Spool, pilot: str, info: Dict[str, Any]) -> None:
    """Replace runner.json durably: it says that the runner has begun, or closed."""
    write(spool, pilot, info, "runner.json")


def show(spool: Spool, pilot: str, info: Dict[str, Any]) -> None:
    """Replace runner.json without making it durable: which jobs run decides nothing."""
    files.show(*_document(spool, pilot, info, "runner.json"))


def _document(
    spool: Spool, pilot: str, info: Dict[str, Any], name: str
) -> Tuple[files.Path, bytes]:
    document = files.merge({"protocol": PROTOCOL, "pilot": pilot}, info)
    return files.join(spool.pilot_folder(pilot), name), files.to_json(document)


def read(spool: Spool, pilot: str) -> Dict[str, Any]:
    """Return everything known of a pilot; of one without a folder, its id alone."""
    parts = [_read(spool, pilot, name) for name in PAPERS]
    own = parts[PAPERS.index("pilot.json")].get("native_id")
    known = files.merge({"pilot": pilot}, *parts)
    # The batch system's own word is the id to ask it for; the runner's is second.
    known["native_id"] = own or known.get("native_id")
    return known


def pilots(spool: Spool) -> List[str]:
    """Return the ids of all pilots that have a folder."""
    return [name for name in files.names(spool.path("pilots")) if is_random(name)]


def beat(counter: int, pilot: str) -> bytes:
    """Return the content of a heartbeat: fixed in size, different each time."""
    text = f"{counter:020d} {pilot} {clock.iso()}"
    return (text.ljust(HEARTBEAT_BYTES - 1) + "\n").encode("ascii")


def observe(spool: Spool, pilot: str, listed: Optional[bool]) -> Observation:
    """Look at a pilot's heartbeat, remember it for this node, and tell for how long it stands
    still.

    `listed`: whether the batch system lists it; None when it gave no complete answer. Raises
    OSError when the memory cannot be written: an observer whose own writes fail may conclude
    nothing.
    """
    try:
        content = files.read_bytes(files.join(spool.pilot_folder(pilot), "heartbeat"), 1 << 10)
    except OSError:
        content = b""
    text = content.decode("latin-1")
    name = "observed." + clock.node()
    now, boot = clock.monotonic(), clock.boot()
    before = _read(spool, pilot, name)
    if before.get("boot") != boot:
        before = {}
    same = before.get("heartbeat") == text
    since = before["since"] if same else now
    reads = before["reads"] + 1 if same else 1
    absent = before.get("absent")
    if listed is not None:
        absent = None if listed else (now if absent is None else absent)
    memory = {"boot": boot, "heartbeat": text, "since": since, "reads": reads, "absent": absent}
    write(spool, pilot, memory, name)
    return Observation(now - since, reads, 0.0 if absent is None else now - absent)


def death(
    info: Dict[str, Any],
    listed: Optional[Dict[str, batch.PilotState]],
    seen: Observation,
    absent_s: float,
) -> Optional[str]:
    """Return why a pilot is positively dead, in words; None while that is not known.

    `info` as from `read`; `listed` the batch system's complete list, or None; `absent_s` as in its
    dialect. A wrong suspicion costs work, never correctness; so of two doubts the longer wait wins.
    """
    started = bool(info.get("started"))
    state = None if listed is None else listed.get(info["pilot"])
    if state is not None and state.state == batch.ENDED:
        return f"the batch system says that it ended ({state.reason or 'no reason given'})"
    if state is not None and state.state == batch.QUEUED:
        return None
    if listed is not None and state is None:
        if info.get("closed"):
            return "it closed"
        if (started or info.get("native_id")) and seen.still_s >= STILL_S:
            return "the batch system does not list it and its heartbeat stands still"
        if min(seen.absent_s, seen.still_s) >= absent_s and not (started or info.get("native_id")):
            return "the batch system never took it"
    if started and seen.still_s >= LEASE_S and seen.reads >= READS:
        return f"its heartbeat stood still for {int(LEASE_S)} s"
    return None


def _read(spool: Spool, pilot: str, name: str) -> Dict[str, Any]:
    """Return one JSON file of a pilot; empty when it is missing or damaged."""
    try:
        found = files.read_json(files.join(spool.pilot_folder(pilot), name))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _freeze(code: bytes) -> List[bytes]:
    """Copy this package and the launcher into a folder; return the folders that were filled."""
    source = files.to_bytes(os.path.dirname(os.path.abspath(__file__)))
    folders = []
    files.make_folder(code)
    for inner in PACKAGES:
        origin, target = files.join(source, inner), files.join(code, "hpc_cluster", inner)
        files.make_folder(target)
        for name in _modules(origin):
            files.copy(files.join(origin, name), files.join(target, name))
        folders.append(target)
    files.write_new(files.join(code, "hpc_runner"), LAUNCHER, 0o700)
    return folders + [code]


def _modules(folder: bytes) -> List[str]:
    """Return the names of the programs' files in a folder."""
    return [n for n in files.names(folder) if n.endswith(".py") or n == "hpc_runner"]
