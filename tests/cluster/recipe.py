"""The recipes of HPC hosts' files: Debian sid with Slurm, sshd, rsync, python3 and Apptainer,
Debian bookworm with Grid Engine, and bookworm with its older Slurm.

`tree` returns a folder that holds one, and builds it first when this machine has none of its
recipe yet (about two minutes; debootstrap, then apt-get in the new tree). It is kept in a cache,
under the recipe's hash; what runs in it changes nothing there. Trees of other recipes are removed
when nobody uses them: whoever runs a host holds a shared lock on its tree.

Nothing outside the cache is touched, and a build that is killed leaves no process or mount: it runs
in namespaces of its own that die with it, and the next one removes what it had written.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent

CACHE = Path(os.environ.get("HPC_BATCH_CLUSTER_CACHE", "/var/cache/hpc_batch-tests"))

MIRROR = "http://deb.debian.org/debian"

COMMON = ("openssh-server", "rsync", "python3", "cron", "iproute2", "procps")

SLURM_PACKAGES = (
    "systemd-standalone-sysusers",  # or cron brings the whole of systemd
    *("slurmctld", "slurmd", "slurm-client", "slurm-wlm-torque", "munge"),
    *COMMON,
    *("apptainer", "squashfuse", "fuse3", "busybox-static"),
)

OLDER_SLURM_PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge", *COMMON)

GRID_ENGINE_PACKAGES = (
    "msmtp-mta",  # or bsd-mailx, which Grid Engine wants, brings a mail server
    *("gridengine-master", "gridengine-exec", "gridengine-client", "db-util"),
    *COMMON,
)

USERS = ("amp", "bob")
"""Ordinary accounts, with a home each."""

BUILD = """\
printf '#!/bin/sh\\nexit 101\\n' > /usr/sbin/policy-rc.d    # start no daemon
chmod 755 /usr/sbin/policy-rc.d
export DEBIAN_FRONTEND=noninteractive
apt-get install -y -qq --no-install-recommends $PACKAGES
apt-get clean
rm -rf /var/lib/apt/lists/*
rm -f /etc/resolv.conf
for user in $USERS; do
    useradd --create-home --shell /bin/bash --password '*' "$user"
    install -d -m 700 -o "$user" -g "$user" "/home/$user/.ssh"
done
"""
"""Runs in the new tree."""

MUNGE = """\
mungekey --create --force
chown munge: /etc/munge/munge.key
"""

INSTALL = "--no-install-recommends $PACKAGES"

AGAIN = f"{INSTALL} || dpkg --configure -a"
"""Grid Engine's master fails to make a cell where nothing runs, and leaves it alone the second
time; the host makes its own."""


class Recipe(NamedTuple):
    """What a tree is made of."""

    suite: str
    """Of Debian."""
    packages: tuple[str, ...]
    build: str
    """Shell that runs in the new tree."""

    @property
    def key(self) -> str:
        """Return its hash."""
        parts = [self.suite, MIRROR, *self.packages, *USERS, self.build]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


SLURM = Recipe("sid", SLURM_PACKAGES, BUILD + MUNGE)
OLDER_SLURM = Recipe("bookworm", OLDER_SLURM_PACKAGES, BUILD + MUNGE)
GRID_ENGINE = Recipe("bookworm", GRID_ENGINE_PACKAGES, BUILD.replace(INSTALL, AGAIN))
RECIPES = (SLURM, OLDER_SLURM, GRID_ENGINE)

NEEDS = {
    "debootstrap": "debootstrap",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "setpriv": "util-linux",
    "pivot_root": "util-linux",
    "ssh-keygen": "openssh-client",
}
"""Programs of the service host, and the Debian packages that bring them."""


ALONE = (
    *("setpriv", "--pdeathsig", "KILL"),
    *("unshare", "--mount", "--pid", "--ipc", "--fork", "--kill-child=KILL", "--mount-proc"),
)
"""Runs a command whose processes and mounts end with this process."""


class Missing(Exception):
    """This machine cannot have such a host; says why, in words."""


def check() -> None:
    """Raise Missing when this machine lacks what the recipe needs."""
    if os.geteuid() != 0:
        raise Missing("the cluster needs root, for namespaces with an address of their own")
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    missing = [package for name, package in NEEDS.items() if not shutil.which(name, path=path)]
    if missing:
        packages = " ".join(sorted(set(missing)))
        raise Missing(f"the cluster needs Debian packages: apt-get install {packages}")


def tree(recipe: Recipe = SLURM) -> tuple[Path, int]:
    """Return the folder of a built tree, and a descriptor that keeps it from being removed.

    Raises Missing when it cannot be built.
    """
    check()
    CACHE.mkdir(parents=True, exist_ok=True)
    (CACHE / "stage").mkdir(exist_ok=True)
    building = os.open(CACHE / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(building, fcntl.LOCK_EX)
    try:
        folder = CACHE / recipe.key
        if not folder.is_dir():
            _remove_others()
            _build(recipe, folder)
        return folder, _use(folder, fcntl.LOCK_SH)
    finally:
        os.close(building)


def _use(folder: Path, how: int) -> int:
    """Lock a tree, shared to use it or exclusively to remove it. Raises BlockingIOError."""
    descriptor = os.open(f"{folder}.used", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise
    return descriptor


def _remove_others() -> None:
    """Remove trees of other recipes and what killed builds left, unless a host runs in them."""
    kept = {"stage", "up", *(recipe.key for recipe in RECIPES)}
    for folder in CACHE.iterdir():
        if not folder.is_dir() or folder.name in kept:
            continue
        try:
            descriptor = _use(folder, fcntl.LOCK_EX)
        except BlockingIOError:
            continue  # a host runs in it
        shutil.rmtree(folder)
        Path(f"{folder}.used").unlink()
        os.close(descriptor)


def _build(recipe: Recipe, folder: Path) -> None:
    """Make the tree under another name, then rename it."""
    draft = Path(f"{folder}.building")
    script = (
        'set -eu; debootstrap --variant=minbase "$SUITE" "$DRAFT" "$MIRROR"\n'
        'mount --bind /dev "$DRAFT/dev"; mount -t proc proc "$DRAFT/proc"\n'
        'chroot "$DRAFT" /bin/sh -eu -c "$BUILD"'
    )
    environment = {
        **{k: v for k, v in os.environ.items() if k.endswith("_proxy")},
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "SUITE": recipe.suite,
        "MIRROR": MIRROR,
        "DRAFT": str(draft),
        "BUILD": recipe.build,
        "PACKAGES": " ".join(recipe.packages),
        "USERS": " ".join(USERS),
    }
    log = CACHE / "build.log"
    with log.open("wb") as output:
        done = subprocess.run(
            [*ALONE, "sh", "-c", script],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            check=False,
        )
    if done.returncode != 0:
        lines = log.read_text(errors="replace").split("\n")[-6:]
        shutil.rmtree(draft, ignore_errors=True)
        raise Missing(f"the cluster could not be built (whole log: {log}): {' / '.join(lines)}")
    make_keys(draft)
    draft.rename(folder)


def make_keys(draft: Path) -> None:
    """Make one key pair, and let it log in as each user. The private one is root's alone."""
    path = draft / "root" / "key"
    words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "hpc_batch tests", "-f"]
    subprocess.run([*words, str(path)], check=True)
    for user in USERS:
        home = draft / "home" / user
        owner = home.stat()
        target = home / ".ssh" / "authorized_keys"
        shutil.copy(f"{path}.pub", target)
        os.chown(target, owner.st_uid, owner.st_gid)
