"""The cluster for people: `up` and `down`.

There is one, described by `CACHE/up/cluster.json`. Beside that lie the key, a configuration that
reaches it, and a dropbox. A description without its process is what a restart of this machine left;
it is taken away first.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from cluster import recipe
from cluster.cluster import CHECKOUT, Cluster, bring_up
from cluster.host import Host

FOLDER = recipe.CACHE / "up"
FILE = FOLDER / "cluster.json"

INI = """\
# Written by tests/cluster/up: one pass is
#     {checkout}/tools/hpc_submitter {folder}/hpc_batch.ini
[remote]
host = {address}
user = {user}
key_file = {folder}/key
known_hosts = {folder}/known_hosts

[hpc]
scheduler = slurm
walltime = 1h
options = --mem-per-cpu=100

[pilot]
linger = 60

[cronjob]
dropbox = {folder}/dropbox
state = {folder}/state

[hpc_env]
workspace = /home/{user}/workspace
scripts = /home/{user}/hpc_batch/on_hpc/scripts
containers = /home/{user}/containers
"""


def up() -> int:
    """Start the cluster unless it is there, and say how to use it."""
    found = _running()
    if found is None:
        try:
            recipe.check()
            FOLDER.mkdir(parents=True, exist_ok=True)
            made = bring_up(FOLDER, tied=False)
        except recipe.Missing as why:
            print(f"up: {why}", file=sys.stderr)
            return 1
        host = made.host
        found = {"address": host.address, "outer": host.outer, "init": host.init}
        found["started"] = _started(host.init)
        FILE.write_text(json.dumps(found) + "\n")
    _configure(found["address"])
    print(
        f"The cluster is up at {found['address']} (Slurm with nodes n1, n2 and g1; Apptainer).\n\n"
        f"Log in:        ssh -i {FOLDER}/key -o UserKnownHostsFile={FOLDER}/known_hosts "
        f"{recipe.USERS[0]}@{found['address']}\n"
        f"Configuration: {FOLDER}/hpc_batch.ini\n"
        f"Dropbox:       {FOLDER}/dropbox\n"
        f"One pass:      {CHECKOUT}/tools/hpc_submitter {FOLDER}/hpc_batch.ini\n"
        f"Stop it:       {recipe.HERE}/down"
    )
    return 0


def down() -> int:
    """Stop the cluster."""
    found = _running()
    if found is None:
        print("down: no cluster is up", file=sys.stderr)
        return 0
    Cluster(Host(found["address"], found["outer"], found["init"]), FOLDER).host.stop()
    FILE.unlink()
    return 0


def _configure(address: str) -> None:
    """Write a configuration that reaches the cluster, and make its dropbox."""
    (FOLDER / "dropbox").mkdir(exist_ok=True)
    user = recipe.USERS[0]
    text = INI.format(checkout=CHECKOUT, folder=FOLDER, address=address, user=user)
    (FOLDER / "hpc_batch.ini").write_text(text)
    (FOLDER / "hpc_batch.ini").chmod(0o600)


def _running() -> dict[str, Any] | None:
    """Return the description of the cluster that is up; remove one of a cluster that is not."""
    try:
        found = json.loads(FILE.read_text())
    except FileNotFoundError:
        return None
    if isinstance(found, dict) and _started(found["init"]) == found["started"]:
        return found
    FILE.unlink()
    return None


def _started(pid: int) -> str | None:
    """Return when a process started; its number alone may have been given to another."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return None
    return text.rpartition(")")[2].split()[19]
