"""One big file each way, interrupted and shared, over a real sshd on this machine.

Every contender logs in by itself, and ours ends when the file is durable; rsync by itself ends when
it is in memory, so it is asked to sync as well (`--fsync`), for a second comparison: where the disk
is slower than the line, that is the one that tells. The SHA-256 of every byte is compared at the
other end.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.table import Missing, Row, absolute, alternate, ratio, rounds, scratch
from integration import proxy, sshd
from world import world

from hpc_batch import hosts, session
from hpc_batch.bulk import Outgoing, WantedOutput
from hpc_batch.errors import RemoteError
from hpc_batch.inputs import examine
from hpc_cluster import durable, files

TITLE = "Transfers"

SCRIPTS = Path(__file__).resolve().parents[2] / "on_hpc" / "scripts"
INSTANCE = "0123abcd"
JOB = f"{INSTANCE}-18c00000000-0000000000000001"
MIB = 1 << 20
GOALS = {"openssh": 0.97, "fabric": 0.8}
"""At least so much of rsync's speed."""


def rows(quick: bool) -> list[Row]:
    """Measure speed both ways, what a cut costs, and what a shared input costs."""
    if sshd.MISSING:
        raise Missing(sshd.MISSING)
    size = (256 if quick else 2048) * MIB
    with scratch() as folder, sshd.running(folder / "sshd") as server:
        lab = Lab(folder, server, _file(folder / "file", size))
        found = []
        for way in ("there", "back"):
            found += _speed(lab, way, rounds(quick, 5))
        found += [_resumed(lab, transport) for transport in GOALS]
        found += _shared(folder / "shared", server, (64 if quick else 500) * MIB)
    return found


@dataclass
class Lab:
    """A server, and a file that travels."""

    folder: Path
    server: sshd.Sshd
    source: Path

    @property
    def size(self) -> int:
        return self.source.stat().st_size

    @property
    def workspace(self) -> Path:
        return self.folder / "workspace"

    @contextlib.contextmanager
    def session(self, transport: str, port: int | None = None) -> Iterator[session.Session]:
        """Log in and begin a session."""
        remote = _remote(self.server, transport, port)
        host = hosts.connect(remote)
        env = {"workspace": str(self.workspace), "scripts": str(SCRIPTS)}
        try:
            with session.begin(host, remote, env, INSTANCE) as begun:
                yield begun
        finally:
            host.close()

    def send(self, begun: session.Session, key: str) -> int:
        """Send the file into the store; return how many bytes were sent."""
        sent: list[int] = []
        outgoing = Outgoing(("key", key), str(self.source), examine(str(self.source)))
        failures = begun.data().send([outgoing], sent.append)
        assert not failures, failures
        return sum(sent)

    def ours(self, transport: str, way: str) -> float:
        """Carry the file one way and return the seconds it took, with its login."""
        target = self.folder / "ours"
        begin = time.perf_counter()
        with self.session(transport) as begun:
            if way == "there":
                self.send(begun, secrets.token_hex(16))
            else:
                self._fetch(begun, target)
            took = time.perf_counter() - begin
        for path in [target, *(self.workspace / "inputs").iterdir()]:
            path.unlink(missing_ok=True)
        return took

    def _fetch(self, begun: session.Session, target: Path) -> None:
        work = self.workspace / "jobs" / JOB / "a1" / "work"
        if not work.exists():
            work.mkdir(parents=True)
            os.link(self.source, work / "out")

        def opener() -> int:
            return files.open_partial(str(target))

        wanted = WantedOutput(JOB, 1, "out", "flat", self.size, opener, _digest(self.source))
        got = begun.data().fetch([wanted])[0]
        assert got.failure is None and got.sha256 == wanted.sha256, got
        durable.sync_file(str(target))

    def rsync(self, way: str, *options: str) -> float:
        """Carry the file one way with rsync over ssh."""
        target = self.folder / "theirs"
        far = f"{self.server.user}@127.0.0.1"
        pair = [str(self.source), f"{far}:{target}"]
        if way == "back":
            pair = [f"{far}:{self.source}", str(target)]
        shell = (
            f"ssh -p {self.server.port} -i {self.server.key} -o BatchMode=yes"
            f" -o UserKnownHostsFile={self.server.known_hosts} -o StrictHostKeyChecking=yes"
        )
        begin = time.perf_counter()
        subprocess.run(["rsync", *options, "-e", shell, *pair], check=True)
        took = time.perf_counter() - begin
        target.unlink()
        return took


def _speed(lab: Lab, way: str, times: int) -> list[Row]:
    """Return rsync's time over ours: our speed as a part of its."""
    _digest(lab.source)
    contenders: dict[str, Any] = {
        "rsync": lambda: lab.rsync(way),
        "rsync --fsync": lambda: lab.rsync(way, "--fsync"),
    }
    for transport in GOALS:
        contenders[transport] = lambda transport=transport: lab.ours(transport, way)
    seconds = alternate(contenders, times)
    speeds = {name: [lab.size / MIB / s for s in all_s] for name, all_s in seconds.items()}
    what = f"{lab.size // MIB} MiB in one file {way}, SHA-256 included"
    found = []
    for transport, goal in GOALS.items():
        for other in ("rsync", "rsync --fsync"):
            told = f"{what}, `{transport}`"
            found.append(
                ratio(
                    told,
                    f"{other} over ssh",
                    speeds[transport],
                    speeds[other],
                    unit="MiB/s",
                    at_least=goal,
                )
            )
    return found


def _resumed(lab: Lab, transport: str) -> Row:
    """Cut a transfer in its middle, continue it, and return what was sent twice."""
    key = secrets.token_hex(16)
    with proxy.Proxy(lab.server.port) as line:
        line.cut_after(up=lab.size // 2)
        with contextlib.suppress(RemoteError), lab.session(transport, line.port) as begun:
            lab.send(begun, key)
        cut = line.up_bytes
        part = next((lab.workspace / "inputs").glob(f"{key}.*"))
        while not part.name.endswith(".part"):  # until the far end has seen the end
            time.sleep(0.1)
            part = next((lab.workspace / "inputs").glob(f"{key}.*"))
        with lab.session(transport, line.port) as begun:
            lab.send(begun, key)
        twice = line.up_bytes - lab.size
    (lab.workspace / "inputs" / key).unlink()
    what = f"a transfer of {lab.size // MIB} MiB cut at {cut // MIB} MiB: sent twice, `{transport}`"
    return absolute(what, [100 * twice / lab.size], "%", at_most=2)


def _shared(folder: Path, server: sshd.Sshd, size: int) -> list[Row]:
    """Return what 20 jobs cost that name one input, and 20 more after them."""
    found = []
    with proxy.Proxy(server.port) as line:
        remote = _remote(server, "fabric", line.port)
        section = {k: v for k, v in dataclasses.asdict(remote).items() if v}
        keys = {"remote": section, "hpc_env": {"scripts": SCRIPTS}, "pilot": {"slots": 2}}
        with world(folder, **keys) as here:
            source = _file(folder / "shared.bin", size)
            time.sleep(2.1)  # a file that changed just now may change again
            for batch in ("20 jobs naming one input", "20 more, in another pass"):
                before = line.up_bytes
                names = [f"{batch[:4].strip()}{number}" for number in range(20)]
                for name in names:
                    outputs = {"target": str(here.out / name)}
                    here.drop(name, "keep", input_map={"source": str(source)}, output_map=outputs)
                answers = here.until(*names)
                assert {a["status"] for a in answers.values()} == {"ok"}, answers
                moved = (line.up_bytes - before) / size
                goal = 1.02 if not found else 0.02
                what = f"{batch} of {size // MIB} MiB: bytes on the wire"
                found.append(absolute(what, [moved], "× the file", at_most=goal))
    return found


def _remote(server: sshd.Sshd, transport: str, port: int | None) -> Any:
    """Return the [remote] settings for a server, or for a proxy before it."""
    if port is None:
        return server.remote(transport, python=sys.executable)
    known_hosts = server.folder / f"known_hosts.{port}"
    text = server.known_hosts.read_text()
    known_hosts.write_text(text.replace(f":{server.port} ", f":{port} "))
    return server.remote(transport, port=port, known_hosts=known_hosts, python=sys.executable)


def _file(path: Path, size: int) -> Path:
    """Make a file that compresses badly and is old enough to be looked up again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    block = os.urandom(16 * MIB)
    with open(path, "wb") as file:
        while missing := size - file.tell():
            file.write(block[:missing])
    os.utime(path, ns=(1, 1))
    durable.sync_file(str(path))
    return path


_digests: dict[Path, str] = {}


def _digest(path: Path) -> str:
    """Return a file's SHA-256, which on a cluster the job's end has left."""
    if path not in _digests:
        digest = hashlib.sha256()
        with open(path, "rb") as file:
            while data := file.read(MIB):
                digest.update(data)
        _digests[path] = digest.hexdigest()
    return _digests[path]
