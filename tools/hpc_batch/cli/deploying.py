"""The verb deploy: this release's cluster side, brought to the cluster."""

from __future__ import annotations

import re
from typing import Any

from hpc_batch import deployment, hosts
from hpc_batch.cli import exit_codes
from hpc_batch.cli.ini import load
from hpc_batch.cli.output import CommandError, Output
from hpc_batch.cli.requests import Deploy
from hpc_batch.config import Config
from hpc_batch.deployment import Edition, Found


def deploy(request: Deploy, output: Output) -> int:
    """Copy on_hpc to [hpc_env] scripts and switch to it; nothing when the same is there."""
    config, ours = load(request), deployment.edition()
    if "scripts" not in config.env:
        return _tell(output, request, ours, "nothing", "everything runs on this machine, from here")
    scripts, host = config.env["scripts"], hosts.connect(config.remote)
    try:
        found = deployment.examine(host, config)
        if found.digest == ours.digest and not found.lacking:
            what = f"{host.name}:{scripts} has {ours.name} already ({found.kind})"
            return _tell(output, request, ours, "nothing", what, found)
        _refuse(config, found, ours, force=request.force)
        had = f"{found.version} ({found.kind})" if found.version else "nothing"
        if request.dry_run:
            what = f"would bring {ours.name} to {host.name}:{scripts}, which has {had}"
            return _tell(output, request, ours, "would deploy", what, found)
        done = deployment.deploy(host, config, ours, replace=request.force)
        after = deployment.examine(host, config)
    finally:
        host.close()
    if after.digest != ours.digest:
        text = f"{scripts} has {after.digest} now, not {ours.digest}: did somebody deploy as well?"
        raise CommandError(exit_codes.FAILED, "deploy", text)
    what = f"{host.name}:{scripts} has {ours.name} now; before: {had}"
    if done["aside"]:
        what += f"; what was there is {done['aside']}"
    return _tell(output, request, ours, "deployed", what, found)


def _refuse(config: Config, found: Found, ours: Edition, *, force: bool) -> None:
    """Raise CommandError for what --force is needed for."""
    scripts = config.env["scripts"]
    if force:
        return
    if found.kind in ("checkout", "plain"):
        kind = "a git checkout" if found.kind == "checkout" else "a folder that was not deployed"
        version = f", hpc_batch {found.version}" if found.version else ""
        hint = "--force moves its scripts folder aside and puts a link in its place"
        if found.kind == "checkout":
            hint = f"`git pull` there; or {hint}"
        text = f"{scripts} is {kind}{version}, and its files are not those of {ours.version} here"
        raise CommandError(exit_codes.FAILED, "in_the_way", text, hint)
    if found.version and _number(found.version) > _number(ours.version):
        raise CommandError(
            exit_codes.FAILED,
            "older",
            f"the cluster has hpc_batch {found.version}, which is newer than {ours.version} here",
            "update this service host; or --force brings the older one there",
        )


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall("[0-9]+", version))


def _tell(
    output: Output, request: Deploy, ours: Edition, word: str, what: str, found: Found | None = None
) -> int:
    before: dict[str, Any] | None = None if found is None else vars(found)
    if output.json:
        content = {"dry_run": request.dry_run, "done": word, "edition": ours.facts()}
        output.document("deploy", {**content, "before": before})
    else:
        output.line(what)
    return exit_codes.OK
