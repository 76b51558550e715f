"""A soak on the real Slurm of tests/cluster: service hosts reach it over its sshd.

The nemesis gets more to do: pilots that are cancelled or killed as batch jobs, a node's daemon that
is killed and comes back, a controller that is killed, comes back, or stands still.
"""

from __future__ import annotations

import contextlib
import itertools
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cluster.cluster import Cluster
from cluster.recipe import USERS
from soak.clocks import hasten
from soak.nemesis import Nemesis
from soak.processes import Processes, send_here
from soak.soak import Settings, Site

USER = USERS[0]
NUMBERS = itertools.count(1)


@contextlib.contextmanager
def there(cluster: Cluster, folder: Path, settings: Settings) -> Iterator[Site]:
    """Let pilots run on the cluster; service hosts take turns with the transports."""
    home = f"/home/{USER}/soak{next(NUMBERS)}"
    cluster.path(home).mkdir()
    hasten(cluster.path(f"{home}/on_hpc"), settings.lease_s)
    cluster.run("root", f"chown -R {USER}: {home}")
    near = Processes(Path("/proc"), (str(folder),), send_here)

    def send(pid: int, number: int) -> None:
        cluster.run("root", f"kill -{int(number)} {pid}", check=False)

    login = rf"sshd(-session)?: {USER}"
    far = Processes(cluster.path("/proc"), (home,), send, login)
    keys = [
        {
            "remote": cluster.remote(USER, ("openssh", "fabric")[number % 2]),
            "hpc": {"scheduler": "slurm", "walltime": "30m", "options": "--mem-per-cpu=100"},
            "pilot": {"max": settings.pilots, "linger": 10},
            "hpc_env": {"workspace": f"{home}/workspace", "scripts": f"{home}/on_hpc/scripts"},
        }
        for number in range(settings.hosts)
    ]
    yield Site(f"{home}/journal", keys, [near, far], Slurm(cluster, home).teach)
    shutil.copytree(
        cluster.path(f"{home}/workspace"),
        folder / "workspace",
        symlinks=True,
        ignore=shutil.ignore_patterns("inputs", "code"),
    )
    shutil.copy(cluster.path(f"{home}/journal"), folder / "journal")


@dataclass(frozen=True)
class Slurm:
    """What the nemesis does to the batch system."""

    cluster: Cluster
    home: str
    """The folder of this soak; its workspace's pilots are the victims."""

    def teach(self, nemesis: Nemesis) -> None:
        """Add the deeds."""
        nemesis.deeds.update(
            {
                "cancel a pilot": (1, lambda: self._cancel(nemesis, "")),
                "kill a pilot's batch job": (2, lambda: self._cancel(nemesis, "--full -s KILL")),
                "kill a node's daemon": (0.5, lambda: self._kill_node(nemesis)),
                "kill the controller": (0.3, lambda: self._kill_controller(nemesis)),
                "stop the controller": (0.5, lambda: self._stop_controller(nemesis)),
            }
        )

    def _pilots(self) -> list[dict[str, str]]:
        """Return our pilots that wait or run, as Slurm lists them."""
        said = self.cluster.run(
            "root", f"squeue -h -t PD,R -u {USER} -o '%i|%k|%N|%T'", check=False
        )
        keys = ("id", "pilot", "node", "state")
        found = [dict(zip(keys, line.split("|"))) for line in said.splitlines()]
        folder = self.cluster.path(f"{self.home}/workspace/pilots")
        return [pilot for pilot in found if (folder / pilot["pilot"]).exists()]

    def _cancel(self, nemesis: Nemesis, how: str) -> bool:
        pilots = self._pilots()
        if not pilots:
            return False
        chosen = nemesis.chance.choice(pilots)
        nemesis.history.note("kill", what=f"scancel {how}", pilot=chosen["pilot"])
        self.cluster.run("root", f"scancel {how} {chosen['id']}", check=False)
        return True

    def _kill_node(self, nemesis: Nemesis) -> bool:
        node = nemesis.chance.choice(("n1", "n2"))
        if not self._lives(f"slurmd-{node}"):
            return False
        for pilot in self._pilots():
            if pilot["node"] == node:
                nemesis.history.note("kill", what=f"node {node}", pilot=pilot["pilot"])
        self.cluster.kill_slurmd(node)
        nemesis.later(nemesis.chance.uniform(0, 20), lambda: self.cluster.start_slurmd(node))
        return True

    def _kill_controller(self, nemesis: Nemesis) -> bool:
        if not self._lives("slurmctld"):
            return False
        nemesis.history.note("kill", what="slurmctld")
        self.cluster.stop_slurmctld(signal.SIGCONT)
        self.cluster.stop_slurmctld(signal.SIGKILL)
        nemesis.later(nemesis.chance.uniform(0, 8), self.cluster.start_slurmctld)
        return True

    def _stop_controller(self, nemesis: Nemesis) -> bool:
        if not self._lives("slurmctld"):
            return False
        seconds = nemesis.chance.uniform(1, 8)
        nemesis.history.note("stop", what="slurmctld", seconds=seconds)
        self.cluster.stop_slurmctld(signal.SIGSTOP)
        nemesis.later(seconds, self._continue)
        return True

    def _continue(self) -> None:
        """Let a controller go on that was not killed meanwhile."""
        if self._lives("slurmctld"):
            self.cluster.stop_slurmctld(signal.SIGCONT)

    def _lives(self, daemon: str) -> bool:
        path = self.cluster.path(f"/run/{daemon}.pid")
        pid = path.read_text().strip() if path.exists() else ""
        return bool(pid) and self.cluster.path(f"/proc/{pid}/stat").exists()
