"""The cluster: an HPC host with a checkout, a container image and accounts, ready for hpc_batch.

`Cluster` is what tests and people use: the settings that reach it, commands in it, and knobs on
Slurm, sshd and the nodes. Each ordinary account has `~/hpc_batch` (the cluster's side of this
checkout) and `~/containers/my_container.sif`, built there from `image/` by Apptainer itself.
"""

from __future__ import annotations

import shlex
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.host import Host, start
from cluster.init import NODES, slurmd
from cluster.recipe import HERE, SLURM, USERS, Recipe

CHECKOUT = HERE.parents[1]

IMAGE = """\
cd ~/image
mkdir -p bin dev etc home mnt proc sys tmp var/tmp
cp /usr/bin/busybox bin
for name in sh cat wc cut sha256sum sleep; do ln -s busybox bin/$name; done
echo root:x:0:0:root:/:/bin/sh > etc/passwd
echo root:x:0: > etc/group
echo my_container.sif > etc/image-name
mkdir ~/containers
apptainer --quiet build ~/containers/my_container.sif ~/image
"""

UP_S = 30.0


@dataclass(frozen=True)
class Cluster:
    """A running cluster."""

    host: Host
    folder: Path
    """Holds the client's side: key, known_hosts."""

    # ---- reaching it -------------------------------------------------------------------------

    @property
    def address(self) -> str:
        """Return the address of the login node."""
        return self.host.address

    def remote(self, user: str = USERS[0], transport: str = "fabric") -> dict[str, Any]:
        """Return the keys of [remote] that log in as a user."""
        return {
            "transport": transport,
            "host": self.address,
            "user": user,
            "key_file": self.folder / "key",
            "known_hosts": self.folder / "known_hosts",
        }

    def path(self, inside: str) -> Path:
        """Return where this machine sees a path of the cluster's."""
        return self.host.root / inside.lstrip("/")

    def run(self, user: str, command: str, *, check: bool = True) -> str:
        """Run a line of shell in the user's home; return what it printed."""
        return self.host.shell(user, command, check=check)

    # ---- setting it up -----------------------------------------------------------------------

    def furnish(self) -> None:
        """Give each account the checkout and the image, and the client its key."""
        self.folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.path("/root/key"), self.folder / "key")
        (self.folder / "key").chmod(0o600)
        public = self.path("/etc/ssh/ssh_host_ed25519_key.pub").read_text().split()[:2]
        (self.folder / "known_hosts").write_text(f"{self.address} {' '.join(public)}\n")
        clean = shutil.ignore_patterns("__pycache__", "*.pyc")
        for user in USERS:
            home = self.path(f"/home/{user}")
            shutil.copytree(CHECKOUT / "on_hpc", home / "hpc_batch" / "on_hpc", ignore=clean)
            shutil.copytree(HERE / "image", home / "image")
            self.run("root", f"chown -R {user}: /home/{user}")
            if self.path("/usr/bin/apptainer").exists():
                self.run(user, IMAGE)

    # ---- Slurm -------------------------------------------------------------------------------

    def queue(self, user: str = USERS[0]) -> list[dict[str, str]]:
        """Return the user's jobs as Slurm lists them, ended ones too."""
        keys = ("id", "name", "state", "reason", "comment", "node")
        text = self.run("root", f"squeue -h -r -t all -u {user} -o '%i|%j|%T|%r|%k|%N'")
        return [dict(zip(keys, line.split("|"))) for line in text.splitlines()]

    def show(self, native_id: str) -> dict[str, str]:
        """Return what scontrol shows of a job."""
        text = self.run("root", f"scontrol -o show job {native_id}")
        return dict(word.split("=", 1) for word in text.split() if "=" in word)

    def scancel(self, *words: str) -> None:
        """Cancel jobs, as the administrator."""
        self.run("root", "scancel " + shlex.join(words))

    def scontrol(self, *words: str) -> str:
        """Change something in Slurm, as the administrator."""
        return self.run("root", "scontrol " + shlex.join(words))

    def stop_slurmctld(self, number: int = signal.SIGTERM) -> None:
        """Signal the controller: SIGTERM or SIGKILL ends it, SIGSTOP lets it stand still.

        One that is killed forgets what happened in its last seconds, and may give numbers of jobs
        to others.
        """
        pid = self.path("/run/slurmctld.pid").read_text().strip()
        self.run("root", f"kill -{int(number)} {pid}")
        if number in (signal.SIGTERM, signal.SIGKILL):
            self._wait(lambda: not self.path(f"/proc/{pid}").exists(), "slurmctld ends")

    def start_slurmctld(self) -> None:
        """Start the controller and wait until it answers."""
        self.run("root", "slurmctld")
        self._wait(lambda: self._answers(6817), "slurmctld listens")

    def kill_slurmd(self, node: str) -> None:
        """Kill a node's daemon; its jobs go on."""
        pid = self.path(f"/run/slurmd-{node}.pid").read_text().strip()
        self.run("root", f"kill -9 {pid}")
        self._wait(lambda: not self.path(f"/proc/{pid}").exists(), "slurmd ends")

    def start_slurmd(self, node: str) -> None:
        """Start a node's daemon."""
        self.host.run("root", *slurmd(node))

    def knob(self, name: str, value: object) -> None:
        """Set what job_submit.lua reads: reply_delay, queue_wait, refuse; None takes it away."""
        path = self.path(f"/etc/slurm/{name}")
        if value is None:
            path.unlink(missing_ok=True)
        else:
            path.write_text(f"{value}\n")

    # ---- sshd --------------------------------------------------------------------------------

    def stop_sshd(self) -> None:
        """Let the login node refuse connections; open ones stay."""
        pid = self.path("/run/sshd.pid").read_text().strip()
        self.run("root", f"kill {pid}")
        self._wait(lambda: not self.path(f"/proc/{pid}").exists(), "sshd ends")

    def start_sshd(self) -> None:
        """Let the login node accept connections again."""
        self.run("root", "/usr/sbin/sshd")
        self._wait(lambda: self._answers(22), "sshd listens")

    # ---- all of it ---------------------------------------------------------------------------

    def restore(self) -> None:
        """Undo whatever a test did: every daemon up, every node idle, no job, no knob."""
        for name in ("reply_delay", "queue_wait", "refuse"):
            self.knob(name, None)
        if self._pid("slurmctld") is None:
            self.start_slurmctld()
        self.run("root", "kill -CONT $(cat /run/slurmctld.pid)")
        self._wait(lambda: self._answers(6817), "slurmctld listens")
        if self._pid("sshd") is None:
            self.start_sshd()
        for node in NODES:
            if self._pid(f"slurmd-{node}") is None:
                self.start_slurmd(node)
        for user in USERS:
            self.run("root", f"scancel --user={user}; scancel --full --signal=KILL --user={user}")
            self.run("root", f"pkill -KILL -u {user}", check=False)
        for partition in ("cpu", "gpu", "short"):
            self.scontrol("update", f"partitionname={partition}", "state=up")
        for node in NODES:
            self.run("root", f"scontrol update nodename={node} state=resume", check=False)
        self._wait(self._is_idle, "all nodes are idle")

    def _pid(self, daemon: str) -> str | None:
        """Return the id of a daemon that lives."""
        path = self.path(f"/run/{daemon}.pid")
        pid = path.read_text().strip() if path.exists() else ""
        return pid if pid and self.path(f"/proc/{pid}/stat").exists() else None

    def _answers(self, port: int) -> bool:
        script = f"exec 3<>/dev/tcp/login1/{port}"
        return self.host.run("root", "bash", "-c", script, check=False).returncode == 0

    def _is_idle(self) -> bool:
        states = set(self.run("root", "sinfo -h -N -o %T", check=False).split())
        return states == {"idle"}

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + UP_S
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(f"after {UP_S} s in vain: {what}")
            time.sleep(0.02)


def bring_up(folder: Path, *, tied: bool, made_of: Recipe = SLURM) -> Cluster:
    """Start a cluster whose client's side lies in a folder. Raises Missing."""
    made = Cluster(start(tied=tied, made_of=made_of), folder)
    try:
        made.furnish()
    except BaseException:
        made.host.stop()
        raise
    return made
