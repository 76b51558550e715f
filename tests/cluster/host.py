"""An HPC host in namespaces of its own: started, entered, stopped.

    start     unshare … enter.sh … init.py: mounts, processes, network, host name
    address   10.79.N.2, behind a pair of links of which this machine sees `hpcbN` with 10.79.N.1;
              the first N whose link can be made is ours
    end       the kernel ends every process when the first one ends, and removes mounts, network and
              links with the last

The first process ends when its standard input does. So a host that is tied to a test process cannot
outlive it, however that dies. A free one, for people, stays until `stop`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cluster import recipe
from cluster.recipe import HERE, Missing

START_S = 60.0
NAME = "login1"


@dataclass(frozen=True)
class Host:
    """A running HPC host."""

    address: str
    outer: int
    """Process id of `unshare`, which ends with the host."""
    init: int
    """Process id of the host's first process, as this machine sees it."""
    lifeline: int | None = field(default=None, compare=False)
    """The end of the pipe that keeps a tied host alive."""

    @property
    def root(self) -> Path:
        """The host's file tree as this machine sees it."""
        return Path(f"/proc/{self.init}/root")

    def words(self, user: str, command: Sequence[str]) -> list[str]:
        """Return the arguments that run a command in the host, with a clean environment."""
        home = "/root" if user == "root" else f"/home/{user}"
        clean = [f"HOME={home}", f"USER={user}", "PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin"]
        enter = ["nsenter", "-t", str(self.init), "-m", "-p", "-u", "-n", "-i", "-r", "-w", "--"]
        return [*enter, "runuser", "-u", user, "--", "env", "-i", *clean, *command]

    def run(
        self, user: str, *command: str, stdin: str = "", check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the host as a user, and return what it said."""
        return subprocess.run(
            self.words(user, command), input=stdin, text=True, capture_output=True, check=check
        )

    def shell(self, user: str, script: str, *, check: bool = True) -> str:
        """Run a line of shell in the user's home; return what it printed."""
        return self.run(user, "bash", "-c", f"cd; {script}", check=check).stdout

    def stop(self) -> None:
        """End every process in the host and wait until the first is gone."""
        if self.lifeline is not None:
            os.close(self.lifeline)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.init, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.outer, 0)
        end = time.monotonic() + 10
        while Path(f"/proc/{self.init}").exists() and time.monotonic() < end:
            time.sleep(0.01)
        # The kernel removes it with the network namespace, but takes its time.
        link = "hpcb" + self.address.split(".")[2]
        subprocess.run(["ip", "link", "del", link], capture_output=True, check=False)


def start(*, tied: bool, made_of: recipe.Recipe = recipe.SLURM) -> Host:
    """Start a host from a recipe's tree and wait until its batch system is ready.

    Raises Missing when this machine cannot have one.
    """
    tree, used = recipe.tree(made_of)
    status_read, status_write = os.pipe()
    words = ["unshare", "--mount", "--pid", "--net", "--uts", "--ipc", "--fork"]
    words += ["--kill-child=KILL", str(HERE / "enter.sh"), str(recipe.CACHE), str(tree), str(HERE)]
    process = subprocess.Popen(
        [*words, NAME],
        stdin=subprocess.PIPE,
        stdout=status_write,
        stderr=status_write,
        pass_fds=(used,),
        start_new_session=True,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
    )
    os.close(status_write)
    os.close(used)
    assert process.stdin is not None
    lifeline = os.dup(process.stdin.fileno())
    process.stdin.close()
    try:
        address = _connect(process)
        os.write(lifeline, f"{address} {'tied' if tied else 'free'}\n".encode())
        with os.fdopen(status_read, "rb") as status:
            said = status.readline().decode(errors="replace").strip()
        if said != "ready":
            raise Missing(f"the cluster does not start: {said or 'it ended'}")
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        host = Host(address, process.pid, int(children.split()[0]), lifeline if tied else None)
    except BaseException:
        process.kill()
        process.wait()
        os.close(lifeline)
        raise
    if not tied:
        os.close(lifeline)
    # The host ends by itself or by `stop`; Popen would warn that nobody waited for it.
    process.returncode = 0
    return host


def _connect(process: subprocess.Popen[bytes]) -> str:
    """Give the new network namespace one end of a pair of links; return its address."""
    own, end = os.readlink("/proc/self/ns/net"), time.monotonic() + START_S
    while os.readlink(f"/proc/{process.pid}/ns/net") == own:
        if process.poll() is not None or time.monotonic() > end:
            raise Missing("the cluster needs namespaces, and this machine does not allow them")
        time.sleep(0.002)
    for number in range(1, 255):
        link = f"hpcb{number}"
        pair = ["type", "veth", "peer", "name", "eth0", "netns", str(process.pid)]
        made = subprocess.run(["ip", "link", "add", link, *pair], capture_output=True, text=True)
        if made.returncode == 0:
            subprocess.run(["ip", "addr", "add", f"10.79.{number}.1/30", "dev", link], check=True)
            subprocess.run(["ip", "link", "set", link, "up"], check=True)
            return f"10.79.{number}.2"
        if "exists" not in made.stderr:
            raise Missing(f"the cluster needs a network link: {made.stderr.strip()}")
    raise Missing("the cluster found no free address")
