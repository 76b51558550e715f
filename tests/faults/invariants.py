"""The invariants: what must hold of a world, whatever happened to it.

`Past` is read from the events of a run, `check` compares the world at the end with the scenario and
with the undisturbed run. Each violation is a sentence that begins with the invariant's number in
docs/explanation/protocol.md, "What holds".
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from faults.scenarios import LOADER, Scenario
from world import World

from hpc_batch.status import history
from hpc_cluster.ticket import parse

VARYING = ("id", "start", "end", "attempts", "node", "pilot", "times")
"""What an answer may have differently after faults."""

ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{11}-[0-9a-f]{16}|[0-9a-f]{16}")
LAST = re.compile(r"\(last: [^)]*\)")
"""The last pilot, by its node; one that could not say where it runs, by its number."""

ATTEMPTS, STARTS = 3, 10
"""The defaults of [limits]."""

CALM_CODES = {0, 69, 75, 78}
"""Exit codes of a pass that something disturbs (78: its far end does not even begin): never that of
a bug."""


class Past:
    """What happened in a run, from the events that its processes noted."""

    def __init__(self, path: Path) -> None:
        self.lines = path.read_text("utf-8", "surrogateescape").splitlines()

    def of(self, word: str) -> Iterator[str]:
        """Yield the rest of each line that begins with a word."""
        for line in self.lines:
            first, _, rest = line.partition(" ")
            if first == word:
                yield rest

    def violations(self) -> Iterator[str]:
        """What can be seen from the past alone, also of a run that is not over."""
        for wrong in self.of("wrong"):
            yield f"4: {wrong}"
        answers = Counter(path for path in self.of("renamed") if path.endswith(".finished"))
        for path, count in answers.items():
            if count != 1:
                yield f"3: {os.path.basename(path)} was renamed {count} times"
        for path in self.of("renamed"):
            state, _, name = path.rpartition("/")
            state = os.path.basename(state)
            ticket = parse(state, name) if state in ("ready", "running") else None
            if ticket is not None and (ticket.starts > STARTS or ticket.crashes > ATTEMPTS):
                yield f"7: {name}"

    def starts(self) -> Counter[str]:
        """How often each job's script was started."""
        return Counter(self.of("start"))


def answer(world: World, name: str) -> dict[str, Any]:
    """Return the node `job` of an answer."""
    node = yaml.load(world.finished(name).read_bytes(), LOADER)["job"]
    assert isinstance(node, dict)
    return node


def tickets(workspace: Path) -> dict[str, list[str]]:
    """Return every ticket of each job that a session or a pilot could act on."""
    found: dict[str, list[str]] = {}
    for pattern in ("ready/*", "running/*", "done/*/*"):
        for path in workspace.glob(pattern):
            found.setdefault(path.name.partition(".")[0], []).append(str(path))
    return found


def between_steps(world: World) -> Iterator[str]:
    """What must hold whenever nothing moves, faults or none."""
    for job, paths in tickets(world.workspace).items():
        if len(paths) > 1:
            yield f"2: {job} has {len(paths)} tickets: {paths}"
    for slot in world.workspace.glob("slots/*"):
        held = os.listdir(slot)
        if slot.name.isdigit() and len(held) != 1:
            yield f"12: slot {slot.name} holds {held}"


def check(world: World, scenario: Scenario, calm: str | None) -> Iterator[str]:
    """What must hold at the end; `calm` is the outcome of the undisturbed run."""
    for name, expected in scenario.expected.items():
        if not world.finished(name).exists():
            yield f"1: {name} is not answered"
            continue
        node = answer(world, name)
        if (node["status"], node["reason"]) != (expected.status, expected.reason):
            yield f"8: {name} ends {node['status']}, {node['reason']}: {node['message']}"
        place = 1 if node["status"] == "ok" else 0
        for output, contents in expected.outputs.items():
            path = world.out / output
            text = path.read_text() if path.exists() else None
            if text != contents[place]:
                yield f"{'4' if place else '5'}: {output} holds {text!r}"
    found = outcome(world, scenario)
    if calm is not None and found != calm:
        yield f"8: another end: {_difference(calm, found)}"
    yield from _history(world, scenario)


def outcome(world: World, scenario: Scenario) -> str:
    """Return all that must not depend on faults."""
    answers = {}
    for name in scenario.names:
        if world.finished(name).exists():
            answers[name] = {k: v for k, v in answer(world, name).items() if k not in VARYING}
            # Of its last pilot a fault may have more to tell, or less
            answers[name]["message"] = LAST.sub("(last)", str(answers[name]["message"]))
    found = {
        "answers": answers,
        "outputs": {path.name: path.read_text()[:50] for path in sorted(world.out.iterdir())},
        # What the store has twice, because a job was staged again, is one name here.
        "tree": sorted({ID.sub("ID", name) for name in _tree(world)}),
    }
    return ID.sub("ID", json.dumps(found, sort_keys=True, indent=1))


NOTES = (
    r"workspace/(pilots|slots|done)/|state/(log|trouble|status|failed|swept)"
    r"|dropbox/\.hpc_batch/trash"
)
"""Listed by themselves, or only there where there was something to note."""


def _tree(world: World) -> Iterator[str]:
    """Yield the names of all that is there but pilots, whose number varies, and what is noted."""
    for folder in (world.dropbox, world.state, world.workspace, world.out):
        for path in sorted(folder.rglob("*")):
            name = str(path.relative_to(world.root))
            if re.match(NOTES, name):
                continue
            yield name
    for path in (world.workspace / "done").glob("*/*"):
        yield str(path.relative_to(world.root))
    for path in (world.workspace / "slots").glob("*"):
        if not path.name.isdigit():
            yield str(path.relative_to(world.root))
    for path in (world.workspace / "pilots").rglob("*"):
        if not re.fullmatch(PILOTS, str(path.relative_to(world.workspace))):
            yield str(path.relative_to(world.root))


PILOTS = (
    r"pilots/([0-9a-f]{16}(/(pilot|runner|dead|adopted)\.json(\.[0-9a-f]{8})?(\.new)?|/heartbeat"
    r"|/log|/probe(\.new)?|/observed\.[^/]+|/code(/.*\.py|/hpc_cluster(/batch|/files)?|/hpc_runner)?)?|probe\.[^.]+"
    r"|trouble)"
)
"""What may be in pilots/; the folder of a pilot that died goes as a whole."""


def _history(world: World, scenario: Scenario) -> Iterator[str]:
    count = Counter(seen.name for seen in history(world.state))
    for name in scenario.names:
        if count[f"{name}.job"] != 1:
            yield f"8: the history has {name} {count[f'{name}.job']} times"


def _difference(calm: str, found: str) -> str:
    one, other = calm.splitlines(), found.splitlines()
    less = [line for line in one if line not in other]
    more = [line for line in other if line not in one]
    return f"missing {less}, new {more}"
