"""One job's life as the service host drives it, killed before its N-th effect on the workspace.

    python life.py WORKSPACE RECORD N

Run as a program of its own by test_killed.py. RECORD is what the service host has written down
durably; run again, it goes on from there in a new session, as the next pass would. Effects are
counted by an audit hook, so nothing of the far end's code is changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import sys
import time
from pathlib import Path
from typing import Any

from hpc_cluster import PROTOCOL
from hpc_cluster.channel import Channel, Ended
from hpc_cluster.frames import Frames
from hpc_cluster.spool import Spool
from hpc_cluster.verbs import Verbs

INSTANCE = "0123abcd"
JOB = f"{INSTANCE}-18c00000001-{1:016x}"
KEY = "c" * 32
STORED, SENT = b"stored" * 2000, b"sent"

EFFECTS = ("os.rename", "os.link", "os.mkdir", "os.rmdir", "os.remove", "os.utime", "os.chmod")


def kill_before(count: int, workspace: str) -> None:
    """End this process, as SIGKILL would, before its `count`-th effect on the workspace."""
    left = [count]

    def hook(event: str, args: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(args[2], int) and args[2] & os.O_ACCMODE
        if not (writes or event in EFFECTS) or not isinstance(args[0], (str, bytes)):
            return
        if os.fsdecode(args[0]).startswith(workspace):
            left[0] -= 1
            if left[0] == 0:
                os._exit(9)

    sys.addaudithook(hook)


def live(workspace: str, record: Path) -> None:
    """Bring the job from where the record says it is to its end."""
    session = secrets.token_hex(8)
    known = json.loads(record.read_text()) if record.exists() else {"phase": "staging"}
    spool, _ = Spool.make(workspace)
    verbs = Verbs(spool, session, INSTANCE, time.sleep)
    if known["phase"] == "staging":
        missing = verbs.do("stage", {"jobs": [JOB], "keys": [[KEY, len(STORED)]]})["missing"]
        send(spool, session, missing)
        done = verbs.do("prepare", {"jobs": [wanted()]})
        assert done == {"prepared": [JOB], "again": {}}, done
        known = write(record, {"phase": "publishing", "session": session})
    if known["phase"] == "publishing":
        verbs.do("publish", {"jobs": [[JOB, known["session"]]]})
        assert verbs.do("census", {})["ready"] == [f"{JOB}.a0c0"]
        check(Path(workspace))
        known = write(record, {"phase": "published"})
    if known["phase"] == "published":
        assert verbs.do("cancel", {"jobs": [JOB]}) == {JOB: "cancelled"}
        assert verbs.do("census", {})["done"] == [f"{JOB}.a0.-.cancelled"]
        known = write(record, {"phase": "cleaning"})
    assert verbs.do("purge", {"jobs": [JOB], "keep": False}) == {"purged": [JOB]}
    verbs.tidy(lambda: True)
    write(record, {"phase": "ended"})


def send(spool: Spool, session: str, missing: list[str]) -> None:
    """Send both inputs through a channel, as frames."""
    reader, near_writer = os.pipe()
    near_reader, writer = os.pipe()
    files: list[tuple[list[Any], bytes]] = [(["job", JOB, 1], SENT)]
    if KEY in missing:
        files.append((["key", KEY], STORED))
    for to, data in files:
        sha256 = hashlib.sha256(data).hexdigest()
        head = {"to": to, "offset": 0, "bytes": len(data), "total": len(data), "sha256": sha256}
        os.write(near_writer, json.dumps({"frame": head}).encode() + b"\n" + data)
    os.write(near_writer, b'{"sync":1}\n')
    os.close(near_writer)
    channel = Channel(reader, writer)
    frames = Frames(spool, session, INSTANCE, channel)
    try:
        while True:
            frames.perform(channel.request())
    except Ended:
        assert json.loads(os.read(near_reader, 4096)) == {"synced": {"failed": []}}


def wanted() -> dict[str, Any]:
    sizes = [("a", len(STORED)), ("b", len(SENT))]
    return {
        "id": JOB,
        "script": "#!/bin/sh\n",
        "inputs": [{"key": KEY, "bytes": len(STORED)}, {"sent": True, "bytes": len(SENT)}],
        "description": {
            "protocol": PROTOCOL,
            "id": JOB,
            "instance": INSTANCE,
            "name": "x.job",
            "script": "x",
            "word": "hpcb" + "0" * 16,
            "layout": "flat",
            "writable_inputs": False,
            "inputs": [{"key": k, "name": k, "bytes": n} for k, n in sizes],
            "outputs": [],
            "time_limit": None,
            "grace_s": 1,
            "attempts": 3,
            "starts": 10,
        },
    }


def check(workspace: Path) -> None:
    """A job that is ready has everything that it needs, whole."""
    folder = workspace / "jobs" / JOB
    assert (folder / "in0").read_bytes() == STORED
    assert (folder / "in1").read_bytes() == SENT
    found = json.loads((folder / "description.json").read_text())
    assert found == {**wanted()["description"], "text": "#!/bin/sh\n"}


def write(record: Path, known: dict[str, Any]) -> dict[str, Any]:
    temporary = record.with_suffix(".new")
    temporary.write_text(json.dumps(known))
    temporary.rename(record)
    return known


if __name__ == "__main__":
    kill_before(int(sys.argv[3]), sys.argv[1])
    live(sys.argv[1], Path(sys.argv[2]))
