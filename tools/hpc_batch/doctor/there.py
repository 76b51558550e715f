"""Checks of the cluster, over the one login that passes use.

The first ones go as far as a login, the next ask its Python by errands, so that they need no
checkout there; the last ones ask the checkout itself (`hpc_cluster.checkup`).
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from typing import Any

import hpc_cluster
from hpc_batch import deployment, errand, far_end
from hpc_batch.amounts import amount
from hpc_batch.config import Config
from hpc_batch.deployment import Found
from hpc_batch.doctor.checks import Check, Subject, Verdict
from hpc_batch.errors import AuthenticationError, FarEndError, HostKeyError
from hpc_batch.hosts import reach

LOGIN = r"printf '\036HPC_BATCH {}\n'"
"""What the login check runs: it only shows the marker."""

CHECKUP = """
import sys
sys.path.insert(0, ARGUMENTS["home"])
sys.dont_write_bytecode = True
from hpc_cluster import checkup
RESULT = checkup.look(*[ARGUMENTS[n] for n in ("workspace", "scheduler", "prologue", "images")])
"""

LITTLE_BYTES = 10 << 30
LITTLE_INODES = 10_000
"""Less free space or inodes than this in the workspace is worth a warning."""

HERE = "everything runs on this machine"


def check_network(subject: Subject) -> Verdict:
    """Connect to the SSH server's port, or the first jump host's."""
    remote = subject.config.remote
    if remote.transport == "local":
        return Verdict("ok", HERE)
    hop = reach.first_hop(remote)
    if hop is None:
        return Verdict("ok", "a ProxyCommand of ~/.ssh/config makes the connection")
    begun = time.monotonic()
    greeting = reach.knock(hop, remote.connect_timeout)
    took = time.monotonic() - begun
    return Verdict("ok", f"{hop[0]} (port {hop[1]}) in {took:.2f} s, {greeting}")


def check_host_key(subject: Subject) -> Verdict:
    """Connect; a host key that is not known is refused before anything else."""
    remote = subject.config.remote
    if remote.transport == "local":
        return Verdict("ok", HERE)
    try:
        _log_in(subject)
    except HostKeyError:
        raise
    except AuthenticationError as error:
        subject.known["login"] = error
    return Verdict("ok", "pinned" if remote.host_key else "known")


def check_login(subject: Subject) -> Verdict:
    """Log in without being asked anything, and see what the login shell does."""
    refused = subject.known.get("login")
    if isinstance(refused, AuthenticationError):
        raise refused
    if "login" not in subject.known:
        _log_in(subject)
    took, banner = subject.known["login"]
    remote = subject.config.remote
    who = f"as {remote.user}" if remote.user else "as configured"
    where = HERE if remote.transport == "local" else f"{who}, by {remote.transport}"
    said = f"; the login shell prints {banner} bytes, which does no harm" if banner else ""
    return Verdict("ok", f"{where}, a command in {took:.2f} s{said}")


def check_python(subject: Subject) -> Verdict:
    """Run an errand in the Python of the configuration."""
    source = "import sys\nRESULT = ['%d.%d.%d' % sys.version_info[:3], sys.executable]"
    version, path = errand.run(subject.host, subject.config.remote, source, {})
    return Verdict("ok", f"{version}, {path}")


def check_checkout(subject: Subject) -> Verdict:
    """Compare what lies at [hpc_env] scripts with this release."""
    config = subject.config
    scripts = config.env.get("scripts")
    if scripts is None:
        package = os.path.dirname(os.path.abspath(hpc_cluster.__file__))
        subject.known["home"] = os.path.dirname(package)
        return Verdict("ok", f"hpc_batch {hpc_cluster.VERSION} of this machine")
    found = deployment.examine(subject.host, config)
    if config.remote.transport == "local" and not found.usable:
        package = os.path.dirname(os.path.abspath(hpc_cluster.__file__))
        subject.known["home"] = os.path.dirname(package)
        return Verdict("ok", f"hpc_batch {hpc_cluster.VERSION} of this machine")
    subject.known["home"] = found.home
    return _of_checkout(config, found, deployment.edition().digest)


def _of_checkout(config: Config, found: Found, digest: str) -> Verdict:
    scripts = config.env["scripts"]
    deploy = f"`hpc-batch -c {config.path} deploy`"
    if found.kind == "missing":
        return Verdict("error", f"there is nothing at {scripts}", deploy)
    if found.lacking:
        return Verdict("error", f"{scripts} lacks {', '.join(found.lacking)}", deploy)
    what = f"{found.kind}, hpc_batch {found.version} (protocol {found.protocol})"
    ours = f"this host has {hpc_cluster.VERSION} (protocol {hpc_cluster.PROTOCOL})"
    if not found.fits:
        newer = (found.protocol or 0) > hpc_cluster.PROTOCOL
        fix = "update this service host" if newer else deploy
        return Verdict("error", f"{what}; {ours}, and the two do not fit", fix)
    if found.digest == digest:
        return Verdict("ok", f"{what}, the same as here")
    fix = "git pull in the checkout there" if found.kind == "checkout" else deploy
    return Verdict("warning", f"{what}; {ours}, and its files differ", fix)


def check_workspace(subject: Subject) -> Verdict:
    """Write, sync, rename and link in the workspace."""
    found = _checkup(subject)["workspace"]
    workspace = subject.config.env["workspace"]
    if found["problem"]:
        return Verdict(
            "error",
            f"{workspace}: {found['problem']}",
            "set [hpc_env] workspace to a folder that this account owns, or may make",
        )
    if not found["there"]:
        return Verdict("ok", f"{workspace} is missing; the first pass makes it")
    return Verdict("ok", f"{workspace} can be written")


def check_scheduler(subject: Subject) -> Verdict:
    """Ask the batch system for a pilot that there is not."""
    found = _checkup(subject)["scheduler"]
    name = subject.config.hpc.scheduler
    if found["answers"] == "yes":
        return Verdict("ok", f"{name} answers")
    if found["answers"] == "missing":
        return Verdict(
            "error",
            f"{name}: {found['message']}",
            "set PATH in [remote] prologue so that its commands are found, or [hpc] scheduler",
        )
    return Verdict(
        "unknown",
        f"{name} did not answer: {found['message']}",
        "try again; while it does not answer, nothing is concluded about pilots",
    )


def check_containers(subject: Subject) -> Verdict:
    """Look for singularity or apptainer, and for the images that templates name."""
    if not subject.known["uses_containers"]:
        return Verdict("ok", "no template runs a container")
    found = _checkup(subject)["containers"]
    if found["missing"]:
        return Verdict(
            "warning",
            f"images that templates name are not there: {', '.join(found['missing'])}",
            "copy them there, or set [hpc_env] containers",
        )
    if found["program"] is None:
        return Verdict(
            "warning",
            "neither singularity nor apptainer on the login node, not even after [hpc] prologue",
            "nodes may have it: `hpc-batch doctor --deep` tells; or load it in [hpc] prologue",
        )
    return Verdict("ok", f"{found['program']}; images that templates name are there")


def check_space(subject: Subject) -> Verdict:
    """Look at free bytes and inodes where the workspace is."""
    found = _checkup(subject)["workspace"]
    room, inodes = found["free_bytes"], found["free_inodes"]
    shown = f"{amount(room)} free"
    if inodes is not None:
        shown += f", {inodes} inodes"
    if room < LITTLE_BYTES or (inodes is not None and inodes < LITTLE_INODES):
        fix = "make room, or set [limits] store_bytes; quotas are not seen from here"
        return Verdict("warning", f"only {shown}", fix)
    return Verdict("ok", shown)


# ---- parts -------------------------------------------------------------------------------------


def _log_in(subject: Subject) -> None:
    """Run a command that only shows the marker; remember how long it took, and the banner."""
    remote, host = subject.config.remote, subject.host
    begun = time.monotonic()
    channel = host.open(far_end.for_any_shell(LOGIN))
    try:
        seen = b""
        while far_end.MARKER not in seen:
            channel.set_timeout(remote.connect_timeout)
            data = channel.read(1 << 16)
            if not data:
                said = channel.stderr_tail().decode("utf-8", "backslashreplace").strip()[-500:]
                raise FarEndError(
                    "login",
                    f"the login shell on {host.name} runs no commands",
                    said or "look at the account's login shell and its start files",
                )
            seen = (seen + data)[: far_end.BANNER_BYTES]
    finally:
        channel.close()
    subject.known["login"] = (time.monotonic() - begun, seen.find(far_end.MARKER))


def _checkup(subject: Subject) -> Mapping[str, Any]:
    """Return what the cluster's checkup found; it is asked once."""
    if "checkup" not in subject.known:
        config = subject.config
        images = _images(config, subject)
        arguments = {
            "home": subject.known["home"],
            "workspace": config.env["workspace"],
            "scheduler": config.hpc.scheduler,
            "prologue": config.hpc.prologue,
            "images": images,
        }
        subject.known["checkup"] = errand.run(subject.host, config.remote, CHECKUP, arguments)
    found: Mapping[str, Any] = subject.known["checkup"]
    return found


def _images(config: Config, subject: Subject) -> list[str]:
    """Return the paths of images that templates name by `<<containers>>/NAME.sif`."""
    containers, found, used = config.env.get("containers"), set(), False
    for path in config.cronjob.templates.glob("*.template"):
        text = path.read_text("utf-8", "replace")
        used = used or re.search(r"^[^#\n]*\b(singularity|apptainer)\b", text, re.M) is not None
        body = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
        found |= set(re.findall(r"(?:<<|«)containers(?:>>|»)/([\w.+-]+\.sif)", body))
    subject.known["uses_containers"] = used
    return sorted(f"{containers}/{name}" for name in found) if containers else []


def _uses_containers(subject: Subject) -> Verdict:
    _checkup(subject)
    return check_containers(subject)


_CHECKOUT = ("checkout",)

THERE = (
    Check("network", check_network, ("config",), connects=True),
    Check("host-key", check_host_key, ("network",), connects=True),
    Check("login", check_login, ("host-key",), connects=True),
    Check("python", check_python, ("login",), connects=True),
    Check("checkout", check_checkout, ("python",), connects=True),
    Check("workspace", check_workspace, _CHECKOUT, connects=True),
    Check("scheduler", check_scheduler, _CHECKOUT, connects=True),
    Check("containers", _uses_containers, _CHECKOUT, connects=True),
    Check("space", check_space, _CHECKOUT, connects=True),
)
