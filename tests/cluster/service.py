"""A service host whose cluster is a real one, for tests."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cluster.cluster import Cluster
from world import World

from hpc_cluster import files

MY_CONTAINER = """\
#!/bin/bash
singularity run --nv --bind <<workspace>>:/mnt <<containers>>/my_container.sif \\
    --level=<<level>> /mnt/<<input>> /mnt/<<txt_output>> /mnt/<<json_output>>
"""


class Site(World):
    """A service host whose cluster is a real one."""

    def __init__(self, root: Path, cluster: Cluster, user: str, name: str) -> None:
        self.cluster, self.user = cluster, user
        self.home = f"/home/{user}"
        self.inside = f"{self.home}/{name}"
        """The workspace as the cluster sees it."""
        self.keys: dict[str, dict[str, Any]] = {
            "remote": cluster.remote(user),
            "hpc": {"scheduler": "slurm", "walltime": "10m", "options": "--mem-per-cpu=100"},
            "pilot": {"linger": 0},
            "hpc_env": {
                "workspace": self.inside,
                "scripts": f"{self.home}/hpc_batch/on_hpc/scripts",
                "containers": f"{self.home}/containers",
            },
        }
        super().__init__(root, **self.keys)
        self.workspace = cluster.path(self.inside)
        self.template("my_container", MY_CONTAINER)

    def change(self, **keys: dict[str, Any]) -> None:
        """Change keys of the configuration."""
        for section, more in keys.items():
            self.keys.setdefault(section, {}).update(more)
        self.configure(**self.keys)

    def drop_count(self, name: str, text: str = "hello\n") -> None:
        """Drop the job of the README: count what is in a file, in the container."""
        source = self.root / f"{name}.in"
        source.write_text(text)
        outputs = {"txt_output": self.out / f"{name}.txt", "json_output": self.out / f"{name}.json"}
        self.drop(
            name,
            "my_container",
            args={"level": "6"},
            input_map={"input": str(source)},
            output_map={key: str(path) for key, path in outputs.items()},
        )

    def drop_sleep(self, name: str, seconds: int) -> None:
        """Drop a job that takes so long and writes one output."""
        outputs = {"target": str(self.out / f"{name}.out")}
        self.drop(name, "sleep", args={"seconds": str(seconds)}, output_map=outputs)

    def pilots_listed(self) -> list[dict[str, str]]:
        """Return the pilots of this workspace as Slurm lists them, ended ones too."""
        mine = {p.name for p in self.workspace.glob("pilots/*")}
        return [job for job in self.cluster.queue(self.user) if job["comment"] in mine]

    def slots_held(self) -> list[Path]:
        """Return the pilots that hold a slot."""
        return [path for path in self.workspace.glob("slots/*/*") if path.name != "free"]

    def wait(self, condition: Callable[[], Any], what: str, timeout: float = 60) -> None:
        """Wait, without making passes."""
        end = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < end, f"in vain: {what}\n{self.picture()}"
            time.sleep(0.05)

    def running(self) -> list[Path]:
        """Return the tickets that are claimed."""
        return list(self.workspace.glob("running/*"))

    def start_job(self, name: str, seconds: int) -> dict[str, str]:
        """Drop a job, wait until a pilot runs it, and return the pilot as Slurm lists it."""
        self.drop_sleep(name, seconds)
        self.sweep()
        self.wait(lambda: list(self.workspace.glob("jobs/*/a1/job.sh")), "the job starts")
        (pilot,) = self.pilots_listed()
        return pilot

    def runner(self, pilot: str) -> dict[str, Any]:
        """Return what the runner of a pilot says of itself."""
        value = files.read_json(str(self.workspace / "pilots" / pilot / "runner.json"))
        assert isinstance(value, dict)
        return value

    def log(self, pilot: str) -> str:
        """Return what a pilot printed."""
        return (self.workspace / "pilots" / pilot / "log").read_text()

    def picture(self) -> str:
        return f"{super().picture()}\n{self.cluster.queue(self.user)}"

    def end(self) -> None:
        """Leave no pilot behind; `cluster` ends them."""
