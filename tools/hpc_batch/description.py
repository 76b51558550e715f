"""A description: a job file in machine form, checked against everything this host knows.

`describe` takes the bytes of a drop and returns what travels (the description and the rendered
script) and what stays (local paths). It finds all problems at once; none of them needs the
cluster. The script is rendered with a random word where the attempt's folder belongs, and the
runner replaces that word: so one script serves every attempt, in absolute paths.
"""

from __future__ import annotations

import os
import secrets
import stat
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from hpc_batch import jobfile, template
from hpc_batch.config import Config
from hpc_batch.errors import JobFileError, MissingInputError, Problem
from hpc_batch.fitting import GRACE_S, misfit, need_s
from hpc_batch.inputs import examine, lies_below
from hpc_batch.jobfile import Description
from hpc_batch.record import Input, Target
from hpc_cluster import PROTOCOL, files

OWN_FOLDERS = "lies in hpc_batch's own folders; name a place outside dropbox and state"


@dataclass(frozen=True)
class Described:
    """What a good drop becomes."""

    description: dict[str, Any]
    """As the runner reads it."""
    script: bytes
    """The rendered script, with the word in it."""
    echo: str
    """What the answer repeats."""
    inputs: tuple[Input, ...]
    targets: tuple[Target, ...]


class Shared:
    """What jobs of one batch have in common, looked at once: templates, and output folders."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self.template = lru_cache(maxsize=None)(self._template)
        """Returns the template of a script. Raises JobFileError, OSError."""
        self.folder_problem = lru_cache(maxsize=None)(self._folder_problem)
        """Tells why no output may be placed in a folder. Raises OSError for what may pass."""
        self.real_path = lru_cache(maxsize=None)(files.real_path)

    def _template(self, script: str) -> template.Template:
        return template.load(self._config.cronjob.templates, script)

    def _folder_problem(self, folder: str) -> str | None:
        cronjob = self._config.cronjob
        files.refresh(os.path.join(folder, ""))
        if not files.is_folder(folder):
            return f"cannot be written: there is no folder {folder!r}"
        if not files.permits(folder, os.W_OK | os.X_OK):
            return f"cannot be written: no permission to write in {folder!r}"
        if lies_below(folder, [cronjob.dropbox, cronjob.state]):
            return OWN_FOLDERS
        if cronjob.output_roots and not lies_below(folder, cronjob.output_roots):
            return "is not below [cronjob] output_roots"
        return None


def describe(
    job: str, name: str, data: bytes, config: Config, shared: Shared | None = None
) -> Described:
    """Parse, check and render a drop.

    Raises JobFileError with every problem, and OSError for what may pass.
    """
    shared = shared or Shared(config)
    source, problems = jobfile.examine(data, reserved=frozenset(config.env))
    if source is None:
        raise JobFileError(problems)
    chosen = None
    if source.script:
        try:
            chosen = shared.template(source.script)
        except JobFileError as error:
            problems += error.problems
    limit = (chosen.directives.time_limit if chosen else None) or config.limits.time_limit
    unfit = misfit(need_s(limit), config.hpc.walltime)
    if unfit is not None:
        problems.append(Problem(None, unfit))
    layout = chosen.directives.layout if chosen else "flat"
    problems += jobfile.check_names(source, layout)
    inputs = _inputs(source, config, problems)
    targets = _targets(source, config, shared, problems)
    if problems or chosen is None:
        raise JobFileError(jobfile.told(problems))
    word = f"hpcb{secrets.token_hex(8)}"
    paths = {**source.input_map, **source.output_map}
    names = {key: os.path.basename(path) for key, path in paths.items()}
    values: dict[str, Any] = {**source.args, **names}
    root = config.env["workspace"].rstrip("/")
    site = {**config.env, "workspace": f"{root}/jobs/{job}/{word}/work"}
    script = template.render(chosen, values, site, files=names)
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
            "inputs": [{"key": i.key, "name": names[i.key], "bytes": i.stamp[0]} for i in inputs],
            "outputs": [{"key": t.key, "name": names[t.key]} for t in targets],
            "time_limit": limit,
            "grace_s": GRACE_S,
            "attempts": config.limits.attempts,
            "starts": config.limits.starts,
        },
        script=script,
        echo=jobfile.echo_of(source.source),
        inputs=inputs,
        targets=targets,
    )


def _inputs(source: Description, config: Config, problems: list[Problem]) -> tuple[Input, ...]:
    found = []
    for key, path in source.input_map.items():
        line = source.line_of("input_map", key)
        try:
            stamp = examine(path)
        except (MissingInputError, ValueError) as error:
            problems.append(Problem(line, f"input_map: {key}: {error}"))
            continue
        why = _input_problem(path, stamp[0], config)
        if why is not None:
            problems.append(Problem(line, f"input_map: {key}: {path!r} {why}"))
        found.append(Input(key, path, stamp))
    return tuple(found)


def _input_problem(path: str, size: int, config: Config) -> str | None:
    roots, limit = config.cronjob.input_roots, config.limits.input_bytes
    if roots and not lies_below(path, roots):
        return "is not below [cronjob] input_roots"
    if limit is not None and size > limit:
        return f"has {size} bytes; [limits] input_bytes is {limit}"
    return None


def _targets(
    source: Description, config: Config, shared: Shared, problems: list[Problem]
) -> tuple[Target, ...]:
    found = []
    for key, path in source.output_map.items():
        why = _target_problem(path, config, shared)
        if why is not None:
            line = source.line_of("output_map", key)
            problems.append(Problem(line, f"output_map: {key}: {path!r} {why}"))
        found.append(Target(key, path))
    return tuple(found)


def _target_problem(path: str, config: Config, shared: Shared) -> str | None:
    if "\0" in path:
        return "is no possible path"
    folder = os.path.dirname(path)
    why = shared.folder_problem(folder)
    if why is not None:
        return why
    mode = files.mode_of(path, fresh=True)
    if stat.S_ISDIR(mode):
        return "is a folder; name a file"
    if mode and not stat.S_ISREG(mode):
        return "is not a regular file"
    real = os.path.join(shared.real_path(folder), os.path.basename(path))
    return OWN_FOLDERS if real == shared.real_path(str(config.path)) else None
