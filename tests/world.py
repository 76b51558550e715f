"""A whole world in one folder: service host, cluster and user, for tests.

Everything is real: the pass, the session, the pilots (as background processes), the templates. Only
the folders are small.
"""

from __future__ import annotations

import os
import signal
import textwrap
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from hpc_batch import config, submitter
from hpc_batch.journal import Damaged, Journal
from hpc_batch.record import UNSAID
from hpc_cluster import files

TEMPLATES = {
    "copy": """\
        #!/bin/bash
        cp <<source>> <<target>>
        """,
    "keep": """\
        #!/bin/sh
        read -r line < <<source>> || :
        echo "$line" > <<target>>
        """,
    "say": """\
        #!/bin/bash
        printf '%s\\n' <<words>>
        """,
    "fail": """\
        #!/bin/bash
        echo out; echo err >&2
        exit 3
        """,
    "nothing": """\
        #!/bin/bash
        # makes none of its outputs: <<target>>
        true
        """,
    "two": """\
        #!/bin/bash
        echo one > <<first>>; echo two > <<second>>
        """,
    "sleep": """\
        #!/bin/bash
        sleep <<seconds>>
        echo slept > <<target>>
        """,
    "shell": """\
        #!/bin/bash
        <<code|raw>>
        """,
}


class World:
    """One service host and its cluster below `root`."""

    def __init__(self, root: Path, **keys: Mapping[str, Any]) -> None:
        self.root = root
        self.dropbox, self.out = root / "dropbox", root / "out"
        self.state, self.workspace = root / "state", root / "workspace"
        self.templates = root / "templates"
        for folder in (self.dropbox, self.out, self.templates):
            folder.mkdir(parents=True, exist_ok=True)
        for name, text in TEMPLATES.items():
            self.template(name, text)
        self.ini = root / "hpc_batch.ini"
        self.configure(**keys)

    def configure(self, **keys: Mapping[str, Any]) -> None:
        """Write the configuration; `section={"key": value}` adds to or replaces it."""
        sections: dict[str, dict[str, Any]] = {
            "remote": {"transport": "local"},
            "hpc": {"scheduler": "local"},
            "pilot": {"linger": 0},
            "cronjob": {
                "dropbox": self.dropbox,
                "state": self.state,
                "templates": self.templates,
            },
            "hpc_env": {"workspace": self.workspace, "containers": "/c"},
        }
        for section, more in keys.items():
            sections.setdefault(section, {}).update(more)
        lines = []
        for section, entries in sections.items():
            lines.append(f"[{section}]")
            lines += [f"{k} = {v}" for k, v in entries.items() if v is not None]
        self.ini.write_text("\n".join(lines) + "\n")
        self.ini.chmod(0o600)

    @property
    def config(self) -> config.Config:
        return config.load(self.ini)

    def template(self, name: str, text: str) -> None:
        (self.templates / f"{name}.template").write_text(textwrap.dedent(text))

    # ---- the user ----------------------------------------------------------------------------

    def drop(self, name: str, script: str = "copy", **parts: Any) -> Path:
        """Drop NAME.job as our client does: written aside, marked, renamed."""
        job = {"script": script, **parts}
        return self.drop_text(name, yaml.safe_dump(job) + "...\n")

    def drop_copy(self, name: str, text: str = "hello") -> Path:
        """Drop a job that copies a small file; returns the output's path."""
        source, target = self.root / f"{name}.in", self.out / f"{name}.out"
        source.write_text(text)
        self.drop(
            name, "copy", input_map={"source": str(source)}, output_map={"target": str(target)}
        )
        return target

    def drop_quick(self, name: str) -> Path:
        """Drop a job that costs next to nothing, with an input and an output."""
        source, target = self.root / f"{name}.in", self.out / f"{name}.out"
        source.write_text(name)
        self.drop(
            name, "keep", input_map={"source": str(source)}, output_map={"target": str(target)}
        )
        return target

    def drop_text(self, name: str, text: str | bytes) -> Path:
        data = text.encode() if isinstance(text, str) else text
        aside, target = self.dropbox / f".{name}.tmp", self.dropbox / f"{name}.job"
        aside.write_bytes(data)
        aside.rename(target)
        return target

    def finished(self, name: str) -> Path:
        return self.dropbox / f"{name}.job.finished"

    def answer(self, name: str) -> dict[str, Any]:
        """Return the `job` node of an answer."""
        node = yaml.safe_load(self.finished(name).read_bytes())["job"]
        assert isinstance(node, dict)
        return node

    # ---- the service host --------------------------------------------------------------------

    def sweep(self, **options: Any) -> int:
        """Make one pass."""
        return submitter.run(self.config, submitter.Options(**options))

    def until(self, *names: str, timeout: float = 240) -> dict[str, dict[str, Any]]:
        """Make passes until all these jobs are answered and nothing is in flight."""
        end = time.monotonic() + timeout
        while True:
            self.sweep()
            if all(self.finished(n).exists() for n in names) and not self.records():
                return {n: self.answer(n) for n in names}
            assert time.monotonic() < end, self.picture()
            time.sleep(0.1)

    def records(self) -> list[dict[str, Any]]:
        try:
            found = Journal(str(self.state / "journal")).read().records()
            return [{**UNSAID, **record} for _, _, record in sorted(found)]
        except (OSError, Damaged):
            return []

    def status(self) -> dict[str, Any]:
        value = files.read_json(str(self.state / "status.json"))
        assert isinstance(value, dict)
        return value

    def picture(self) -> str:
        """Return everything that tells why a test waited in vain."""
        lines = [str([(r["name"], r["phase"], r["message"]) for r in self.records()])]
        for path in sorted(self.dropbox.iterdir()):
            lines.append(str(path))
        for pattern in ("pilots/*/log", "pilots/*/*.json"):
            for path in sorted(self.workspace.glob(pattern)):
                lines += [f"--- {path}", path.read_text(errors="replace")[-3000:]]
        log = self.state / "log"
        if log.exists():
            lines.append(log.read_text()[-3000:])
        return "\n".join(lines)

    def wait_for_tickets(self, count: int, timeout: float = 240) -> None:
        """Wait until the pilots have finished so many jobs that no pass has collected."""
        end = time.monotonic() + timeout
        while len(list(self.workspace.glob("done/*/*"))) < count:
            assert time.monotonic() < end, self.picture()
            time.sleep(0.05)

    # ---- the cluster -------------------------------------------------------------------------

    def pilots(self) -> list[int]:
        """Return the process ids of pilots that are alive."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    line = (entry / "cmdline").read_bytes()
                except OSError:
                    continue
                if b"hpc_runner" in line and os.fsencode(self.workspace) in line:
                    found.append(int(entry.name))
        return found

    def end(self) -> None:
        """Leave no process behind."""
        for pid in self.pilots():
            try:
                os.kill(pid, signal.SIGTERM)
            except ProcessLookupError:
                continue
        end = time.monotonic() + 10
        while self.pilots() and time.monotonic() < end:
            time.sleep(0.05)
        for pid in self.pilots():
            os.kill(pid, signal.SIGKILL)


@contextmanager
def world(root: Path, **keys: Mapping[str, Any]) -> Iterator[World]:
    """Make a world, and leave no process of it behind."""
    made = World(root, **keys)
    try:
        yield made
    finally:
        made.end()
