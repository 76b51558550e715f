"""The edition of on_hpc that a folder holds: which release, which protocol, which bytes.

`deploy` puts editions side by side and lets one link say which of them is used:

    PARENT/editions/VERSION-DIGEST/     hpc_runner  hpc_cluster/  scripts/
    PARENT/scripts -> editions/VERSION-DIGEST/scripts           SCRIPTS, as [hpc_env] names it

so the programs and the package that they import change together, by one rename. A checkout has the
same three beside each other.

A service host sends this file as text to a cluster whose edition it does not know yet, so it
imports nothing of its own package.
"""

import hashlib
import os
import re
from typing import Any, Dict, List, Tuple

PROGRAMS = ("hpc_runner", "scripts/hpc_queuer", "scripts/hpc_session")
"""What runs, beside the package hpc_cluster."""

EDITIONS = "editions"
"""The folder of deployed editions, beside the link."""

DIGEST_CHARACTERS = 12


def names(package: str) -> List[str]:
    """Return the names of the package's modules, below the folder that holds hpc_cluster."""
    found = []
    for folder, inner, own in os.walk(package):
        inner[:] = [name for name in inner if name != "__pycache__"]
        below = os.path.relpath(folder, os.path.dirname(package))
        found += [os.path.join(below, name) for name in own if name.endswith(".py")]
    return sorted(found)


def digest(contents: List[Tuple[str, bytes]]) -> str:
    """Return the digest of files, whatever their order."""
    whole = hashlib.sha256()
    for name, data in sorted(contents):
        whole.update(f"{name} {hashlib.sha256(data).hexdigest()}\n".encode())
    return whole.hexdigest()[:DIGEST_CHARACTERS]


def facts(contents: List[Tuple[str, bytes]]) -> Dict[str, Any]:
    """Return version, protocol and digest of an edition; None for what cannot be found in it."""
    text = dict(contents).get("hpc_cluster/__init__.py", b"").decode("utf-8", "replace")
    version = re.search(r'^VERSION = "([^"]+)"', text, re.MULTILINE)
    protocol = re.search(r"^PROTOCOL = ([0-9]+)", text, re.MULTILINE)
    return {
        "version": version.group(1) if version else None,
        "protocol": int(protocol.group(1)) if protocol else None,
        "digest": digest(contents),
    }


def describe(scripts: str) -> Dict[str, Any]:
    """Return what a cluster has at SCRIPTS.

    `kind` is `missing`, `deployed` (a link to an edition), `checkout` (of git) or `plain` (any
    other folder); `lacking` names programs that are not there.
    """
    if not os.path.lexists(scripts):
        return {"kind": "missing"}
    home = os.path.dirname(os.path.realpath(scripts))
    contents, lacking = [], []
    for name in names(os.path.join(home, "hpc_cluster")) + list(PROGRAMS):
        try:
            with open(os.path.join(home, name), "rb") as file:
                contents.append((name, file.read()))
        except FileNotFoundError:
            lacking.append(name)
    if not any(name.startswith("hpc_cluster/") for name, _ in contents):
        lacking.append("hpc_cluster")
    known = facts(contents)
    known.update(kind=_kind(scripts), home=home, lacking=lacking)
    return known


def _kind(scripts: str) -> str:
    if os.path.islink(scripts):
        inside = os.path.dirname(os.path.dirname(os.path.realpath(scripts)))
        return "deployed" if os.path.basename(inside) == EDITIONS else "plain"
    folder = os.path.abspath(scripts)
    while folder != os.path.dirname(folder):
        folder = os.path.dirname(folder)
        if os.path.exists(os.path.join(folder, ".git")):
            return "checkout"
    return "plain"
