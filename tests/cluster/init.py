"""The first process of the HPC host: starts its daemons, buries orphans, and ends with its owner.

Standard input is the lifeline. A first line tells that the network is there: `10.79.1.2 tied` or
`10.79.1.2 free`. When a tied lifeline ends, because whoever holds its other end closed it or was
killed, this process ends, and the kernel kills everything in its namespace. Standard output gets
one line, `ready` or what went wrong; daemons write to /var/log.
"""

import os
import select
import signal
import subprocess
import sys
import time

GRID_ENGINE = "/usr/local/sbin/start_gridengine"

NODES = ("n1", "n2", "g1")
READY_S = 30


def main() -> int:
    """Start everything, then stay."""
    address, tie = os.read(0, 100).decode().split()
    try:
        prepare(address)
        if os.path.exists("/var/lib/gridengine"):
            start_grid_engine()
        else:
            start_slurm(address)
        said = "ready"
    except (OSError, subprocess.CalledProcessError, TimeoutError) as error:
        said = f"{error}"
    os.write(1, (said.replace("\n", " ") + "\n").encode())
    stay(tied=tie == "tied")
    return 0


def prepare(address: str) -> None:
    """Bring up the network and write what depends on the address."""
    run("ip", "link", "set", "lo", "up")
    run("ip", "addr", "add", f"{address}/30", "dev", "eth0")
    run("ip", "link", "set", "eth0", "up")
    with open("/etc/hosts", "w") as hosts:
        hosts.write(f"127.0.0.1 localhost\n{address} login1\n")
    with open("/etc/resolv.conf", "w") as file:
        file.write("# no name server: nothing here needs one\n")  # apptainer wants the file
    for folder in ("/run/sshd", "/run/lock"):
        os.makedirs(folder, exist_ok=True)


def start_grid_engine() -> None:
    """Start the daemons of Grid Engine, and sshd."""
    run(GRID_ENGINE)
    run("/usr/sbin/sshd")


def start_slurm(address: str) -> None:
    """Start the daemons of Slurm, and sshd, and wait until the nodes are idle."""
    with open("/etc/slurm/slurm.conf") as file:
        text = file.read()
    with open("/etc/slurm/slurm.conf", "w") as file:
        file.write(text.replace("@ADDRESS@", address))
    if version() < (23, 2):
        with open("/etc/slurm/cgroup.conf", "w") as file:
            file.write("CgroupPlugin=cgroup/v1\n")  # knows no `disabled`, and uses nothing of it
    for folder in ("/run/munge", "/var/lib/slurm-testing/state"):
        os.makedirs(folder, exist_ok=True)
    for node in NODES:
        os.makedirs(f"/var/lib/slurm-testing/spool-{node}", exist_ok=True)
    run("chown", "munge:", "/run/munge")
    run("runuser", "-u", "munge", "--", "/usr/sbin/munged")
    run("slurmctld")
    for node in NODES:
        run(*slurmd(node))
    run("/usr/sbin/sshd")
    end = time.monotonic() + READY_S
    while True:
        # Slurm's clients wait for seconds when they come before the controller listens.
        listens = subprocess.call(
            ["bash", "-c", "exec 3<>/dev/tcp/login1/6817"], stderr=subprocess.DEVNULL
        )
        if listens == 0:
            words = ["sinfo", "--noheader", "--Node", "--format=%T"]
            states = subprocess.run(words, stdout=subprocess.PIPE, check=False).stdout.split()
            if states and set(states) == {b"idle"}:
                return
        if time.monotonic() > end:
            raise TimeoutError(f"Slurm is not ready after {READY_S} s")
        time.sleep(0.02)


def version() -> tuple[int, ...]:
    """Return Slurm's, without its last part."""
    said = subprocess.run(["slurmd", "-V"], stdout=subprocess.PIPE, check=True).stdout
    return tuple(int(part) for part in said.split()[1].split(b".")[:2])


def slurmd(node: str) -> tuple[str, ...]:
    """Return the command that starts a node's daemon, where the host has the node's name."""
    return ("unshare", "--uts", "sh", "-c", f"hostname {node} && exec slurmd -N {node}")


def run(*words: str) -> None:
    """Run a program whose output nobody needs unless it fails."""
    log = "/var/log/boot.log"
    with open(log, "ab") as output:
        subprocess.run(
            words, stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=True, cwd="/"
        )


def stay(*, tied: bool) -> None:
    """Reap orphans until the lifeline ends."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    watched = [reading, 0] if tied else [reading]
    while True:
        reap()
        ready = select.select(watched, [], [], 60)[0]
        if reading in ready:
            os.read(reading, 1 << 10)
        if 0 in ready and not os.read(0, 1 << 10):
            return


def reap() -> None:
    """Bury every child that has ended."""
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                return
        except ChildProcessError:
            return


if __name__ == "__main__":
    sys.exit(main())
