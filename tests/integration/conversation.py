"""A service host of its own for tests of the session: a real far end on this machine.

Jobs are made the way the submitter makes them, as small as they can be.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hpc_batch import far_end, hosts, session, tidings
from hpc_batch.bulk import Outgoing
from hpc_batch.config import Remote
from hpc_batch.inputs import examine
from hpc_cluster import PROTOCOL

INSTANCE = "0123abcd"


@dataclass
class Near:
    """One service host and its sessions; close it at the end."""

    folder: Path
    remote: Remote
    scripts: Path
    workspace: Path
    instance: str = INSTANCE
    hosts: list[hosts.Host] = field(default_factory=list)
    sessions: list[session.Session] = field(default_factory=list)

    @property
    def env(self) -> dict[str, str]:
        return {"workspace": str(self.workspace), "scripts": str(self.scripts)}

    def begin(self, **changes: Any) -> session.Session:
        """Begin a session, with some keys of [remote] changed."""
        remote = replace(self.remote, **changes)
        self.hosts.append(hosts.connect(remote))
        self.sessions.append(session.begin(self.hosts[-1], remote, self.env, self.instance))
        return self.sessions[-1]

    def wire(self, mode: far_end.Mode, name: str = "") -> far_end.Wire:
        """Start a far end and return its bare channel."""
        self.hosts.append(hosts.connect(self.remote))
        name = name or secrets.token_hex(8)
        line = far_end.command(self.remote, self.env, mode, name, self.instance)
        return far_end.start(self.hosts[-1], line, self.remote, self.env)

    def close(self) -> None:
        for one in self.sessions:
            one.close()
        for host in self.hosts:
            host.close()

    def file(self, name: str, data: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(data)
        return path


def job_id(number: int, instance: str = INSTANCE) -> str:
    return f"{instance}-{0x18C00000000 + number:011x}-{number:016x}"


def key_of(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:32]


def outgoing(path: Path, job: str = "", number: int = 0) -> Outgoing:
    """Return a file on its way into the store, or to a job."""
    to: Any = ("job", job, number) if job else ("key", key_of(path))
    return Outgoing(to, str(path), examine(str(path)))


def load(job: str, *inputs: tidings.Carried, script: bytes = b"#!/bin/sh\ntrue\n") -> tidings.Load:
    description = {
        "protocol": PROTOCOL,
        "id": job,
        "instance": job[:8],
        "name": "thing.job",
        "script": "thing",
        "word": "hpcb" + "0" * 16,
        "layout": "flat",
        "writable_inputs": False,
        "inputs": [
            {"key": f"i{n}", "name": f"file {n}", "bytes": i.bytes} for n, i in enumerate(inputs)
        ],
        "outputs": [{"key": "out", "name": "out.txt"}],
        "time_limit": None,
        "grace_s": 30,
        "attempts": 3,
        "starts": 10,
    }
    return tidings.Load(job, description, script, inputs)


def far_ends(name: str, mode: str) -> list[int]:
    """Return the pids of the far ends of one session."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = Path("/proc", pid, "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if name.encode() in words and mode.encode() in words:
            found.append(int(pid))
    return found


def tree(workspace: Path) -> list[str]:
    """Return every name in a workspace that says anything about a job or an input."""
    tops = ("incoming", "ready", "running", "done", "jobs", "inputs", "trash", "kept")
    return sorted(
        str(p.relative_to(workspace)) for top in tops for p in (workspace / top).rglob("*")
    )
