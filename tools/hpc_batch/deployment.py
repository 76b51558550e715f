"""Deployment: bringing this release's on_hpc to the cluster, over the login that passes use.

`edition` makes the archive out of the package that runs here and the programs beside it, of a
checkout or of an installation; `examine` asks what the cluster has; `deploy` sends the archive,
where `hpc_cluster.landing` of the new edition itself unpacks it and switches to it.
"""

from __future__ import annotations

import inspect
import io
import os
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hpc_cluster
from hpc_batch import errand
from hpc_batch.config import Config
from hpc_batch.errors import ConfigError
from hpc_cluster import edition as editions
from hpc_cluster.pilot import LAUNCHER

if TYPE_CHECKING:
    from hpc_batch.hosts import Host

EXAMINE = "\nRESULT = describe(ARGUMENTS['scripts'])\n"
"""Follows the text of hpc_cluster.edition."""

LAND = """
import io, shutil, sys, tarfile, tempfile
folder = tempfile.mkdtemp(prefix="hpc_batch-deploy-")
try:
    with tarfile.open(fileobj=io.BytesIO(PAYLOAD)) as tar:
        tar.extractall(folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    sys.path.insert(0, folder)
    sys.dont_write_bytecode = True
    from hpc_cluster import landing
    RESULT = landing.land(ARGUMENTS["scripts"], PAYLOAD, ARGUMENTS["wanted"], ARGUMENTS["replace"])
finally:
    shutil.rmtree(folder, ignore_errors=True)
"""
"""The new edition lands itself, out of a temporary folder of the login node."""


@dataclass(frozen=True)
class Edition:
    """What this service host would deploy."""

    version: str
    protocol: int
    digest: str
    archive: bytes
    """A tar of all files."""

    @property
    def name(self) -> str:
        """Return the name of its folder."""
        return f"{self.version}-{self.digest}"

    def facts(self) -> dict[str, Any]:
        """Return what the cluster's side compares."""
        return {"version": self.version, "protocol": self.protocol, "digest": self.digest}


@dataclass(frozen=True)
class Found:
    """What the cluster has at SCRIPTS."""

    kind: str
    """missing, deployed, checkout or plain."""
    version: str | None = None
    protocol: int | None = None
    digest: str | None = None
    home: str | None = None
    """The folder that holds hpc_cluster."""
    lacking: tuple[str, ...] = ()

    @property
    def usable(self) -> bool:
        """Tell whether a session can be started from it."""
        return self.kind != "missing" and not self.lacking

    @property
    def fits(self) -> bool:
        """Tell whether it speaks the protocol of this host."""
        return self.protocol in (hpc_cluster.PROTOCOL, hpc_cluster.PROTOCOL + 1)


def edition() -> Edition:
    """Return the edition of this very release. Raises ConfigError when its programs are missing."""
    package = os.path.dirname(os.path.abspath(hpc_cluster.__file__))
    contents = [
        (name, Path(os.path.dirname(package), name).read_bytes())
        for name in editions.names(package)
    ]
    contents += [(name, _program(name, package)) for name in editions.PROGRAMS]
    facts = editions.facts(contents)
    return Edition(
        facts["version"], facts["protocol"], facts["digest"], _archive(contents, editions.PROGRAMS)
    )


def examine(host: Host, config: Config) -> Found:
    """Ask the cluster what is at [hpc_env] scripts. Raises RemoteError."""
    source = inspect.getsource(editions) + EXAMINE
    arguments = {"scripts": config.env["scripts"]}
    return found(errand.run(host, config.remote, source, arguments))


def found(facts: Mapping[str, Any]) -> Found:
    """Return what hpc_cluster.edition described."""
    return Found(
        kind=str(facts["kind"]),
        version=facts.get("version"),
        protocol=facts.get("protocol"),
        digest=facts.get("digest"),
        home=facts.get("home"),
        lacking=tuple(facts.get("lacking", ())),
    )


def deploy(host: Host, config: Config, ours: Edition, *, replace: bool) -> dict[str, Any]:
    """Bring the edition into use at [hpc_env] scripts and return what was done.

    `replace` permits to move aside what was not deployed. Raises FarEndError (kind `deploy`) when
    that is in the way, and RemoteError.
    """
    arguments = {"scripts": config.env["scripts"], "wanted": ours.facts(), "replace": replace}
    done: dict[str, Any] = errand.run(host, config.remote, LAND, arguments, ours.archive)
    return done


def _program(name: str, package: str) -> bytes:
    """Return a program of on_hpc: from the checkout, or as the installation keeps it."""
    if name == "hpc_runner":
        return LAUNCHER
    base = os.path.basename(name)
    places = [
        Path(os.path.dirname(package), name),
        Path(__file__).resolve().parent / "scripts" / base,
    ]
    for place in places:
        if place.is_file():
            return place.read_bytes()
    raise ConfigError(f"this installation lacks {base}: install hpc_batch again")


def _archive(contents: list[tuple[str, bytes]], programs: tuple[str, ...]) -> bytes:
    """Return a tar of files, the same for the same files."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, text in sorted(contents):
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(text), 0o755 if name in programs else 0o644
            tar.addfile(member, io.BytesIO(text))
    return data.getvalue()
