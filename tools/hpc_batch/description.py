"""A description: a job file in machine form, checked against everything this host knows.

`describe` takes the bytes of a drop and returns what travels (the description and the rendered
script) and what stays (local paths). It finds all problems at once; none of them needs the
cluster. The script is rendered with a random word where the attempt's folder belongs, and the
runner replaces that word: so one script serves every attempt, in absolute paths.
"""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from typing import Any

from hpc_batch import jobfile, template
from hpc_batch.config import Config
from hpc_batch.errors import JobFileError, MissingInputError, Problem
from hpc_batch.inputs import Stamp, examine, lies_below
from hpc_batch.record import Input, Target
from hpc_cluster import PROTOCOL

GRACE_S = 30
"""How long a job that must stop may take to do so."""


@dataclass(frozen=True)
class Described:
    """What a good drop becomes."""

    description: dict[str, Any]
    """`description.json`, as the runner reads it."""
    script: bytes
    """The rendered script, with the word in it."""
    inputs: tuple[Input, ...]
    targets: tuple[Target, ...]


def describe(job: str, name: str, data: bytes, config: Config) -> Described:
    """Parse, check and render a drop. Raises JobFileError with every problem."""
    source = jobfile.parse(data, reserved=frozenset(config.env))
    problems: list[Problem] = []
    try:
        chosen = template.load(config.cronjob.templates, source.script)
    except JobFileError as error:
        problems += error.problems
        layout = "flat"
    else:
        layout = chosen.directives.layout
    problems += jobfile.check_names(source, layout)
    inputs = _inputs(source.input_map, config, problems)
    targets = _targets(source.output_map, config, problems)
    if problems:
        raise JobFileError(problems)
    word = f"hpcb{secrets.token_hex(8)}"
    values: dict[str, Any] = dict(source.args)
    for key, path in (*source.input_map.items(), *source.output_map.items()):
        values[key] = os.path.basename(path)
    root = config.env["workspace"].rstrip("/")
    site = {**config.env, "workspace": f"{root}/jobs/{job}/{word}/work"}
    script = template.render(chosen, values, site)
    return Described(
        description={
            "protocol": PROTOCOL,
            "id": job,
            "instance": job.split("-")[0],
            "name": name,
            "script": source.script,
            "word": word,
            "layout": layout,
            "writable_inputs": chosen.directives.writable_inputs,
            "inputs": [
                {"key": i.key, "name": os.path.basename(i.path), "bytes": i.stamp[0]}
                for i in inputs
            ],
            "outputs": [{"key": t.key, "name": os.path.basename(t.path)} for t in targets],
            "time_limit": chosen.directives.time_limit or config.limits.time_limit,
            "grace_s": GRACE_S,
            "attempts": config.limits.attempts,
            "starts": config.limits.starts,
        },
        script=script,
        inputs=inputs,
        targets=targets,
    )


def _inputs(paths: dict[str, str], config: Config, problems: list[Problem]) -> tuple[Input, ...]:
    found = []
    roots, limit = config.cronjob.input_roots, config.limits.input_bytes
    for key, path in paths.items():
        try:
            stamp: Stamp = examine(path)
        except MissingInputError as error:
            problems.append(Problem(None, f"input {key}: {error}"))
            continue
        except ValueError:
            problems.append(Problem(None, f"input {key}: {path!r} is no possible path"))
            continue
        if roots and not lies_below(path, roots):
            problems.append(
                Problem(None, f"input {key}: {path!r} is not below [cronjob] input_roots")
            )
        if limit is not None and stamp[0] > limit:
            text = f"input {key}: {path!r} has {stamp[0]} bytes; [limits] input_bytes is {limit}"
            problems.append(Problem(None, text))
        found.append(Input(key, path, stamp))
    return tuple(found)


def _targets(paths: dict[str, str], config: Config, problems: list[Problem]) -> tuple[Target, ...]:
    found = []
    for key, path in paths.items():
        text = _target_problem(path, config)
        if text is not None:
            problems.append(Problem(None, f"output {key}: {path!r} {text}"))
        found.append(Target(key, path))
    return tuple(found)


def _target_problem(path: str, config: Config) -> str | None:
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        return f"cannot be written: there is no folder {folder!r}"
    if not os.access(folder, os.W_OK | os.X_OK):
        return f"cannot be written: no permission to write in {folder!r}"
    if os.path.isdir(path):
        return "is a folder; name a file"
    if os.path.exists(path) and not os.path.isfile(path):
        return "is not a regular file"
    private = [config.cronjob.dropbox, config.cronjob.state]
    real = os.path.join(os.path.realpath(folder), os.path.basename(path))
    if lies_below(folder, private) or real == os.path.realpath(config.path):
        return "lies in hpc_batch's own folders; name a place outside dropbox and state"
    roots = config.cronjob.output_roots
    if roots and not lies_below(folder, roots):
        return "is not below [cronjob] output_roots"
    return None
