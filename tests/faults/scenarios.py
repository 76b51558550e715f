"""The scenarios: which jobs are dropped, what users do meanwhile, and how it must end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from world import World

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

TEMPLATES = {
    "line": """\
        #!/bin/sh
        read -r line < <<source>> || :
        echo "$line" > <<target>>
        """,
    "both": """\
        #!/bin/sh
        echo one > <<first>>; echo two > <<second>>
        """,
    "failing": """\
        #!/bin/sh
        echo new > <<target>>
        echo out; echo err >&2; exit 3
        """,
    "empty": """\
        #!/bin/sh
        # makes none of its outputs: <<target>>
        """,
    "deadly": """\
        #!/bin/sh
        echo new > <<target>>
        exec 2> /dev/null
        kill -9 $PPID; read -r line < /proc/self/fd/none
        """,
    "store": """\
        #!/bin/sh
        read -r line < <<source>> || :
        echo "${#line}" > <<target>>
        """,
}


@dataclass(frozen=True)
class Expected:
    """How one job ends."""

    reason: str
    outputs: Mapping[str, tuple[str | None, str | None]] = field(default_factory=dict)
    """Name in the output folder: what stood there before, and what stands there at the end."""

    @property
    def status(self) -> str:
        return "ok" if self.reason == "completed" else "error"


@dataclass(frozen=True)
class Scenario:
    """Jobs, and what becomes of them."""

    name: str
    drop: Callable[[World], None]
    expected: Mapping[str, Expected]
    between: Callable[[World, int], None] = lambda world, number: None
    """What users do before the pass of this number."""
    keys: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    starts: int = 1
    """How often each job that runs is started where nothing disturbs it."""
    idle: int = 0
    """So many passes pass before the first pilot begins."""

    @property
    def names(self) -> list[str]:
        return list(self.expected)

    def prepare(self, world: World) -> None:
        """Lay out a world before its first pass."""
        for name, text in TEMPLATES.items():
            world.template(name, text)
        for expected in self.expected.values():
            for name, (before, _) in expected.outputs.items():
                if before is not None:
                    (world.out / name).write_text(before)
        self.drop(world)

    def wrong_with_answer(self, world: World, source: Path, target: Path) -> str:
        """Return what is wrong with an answer that is about to become visible."""
        expected = self.expected[target.name[: -len(".job.finished")]]
        try:
            node = yaml.load(source.read_bytes(), LOADER)["job"]
        except Exception as error:
            return f"{target.name} is incomplete: {error}"
        place = 1 if node["status"] == "ok" else 0
        for name, contents in expected.outputs.items():
            path = world.out / name
            found = path.read_text() if path.exists() else None
            if found != contents[place]:
                return f"{target.name} says {node['status']} while {name} holds {found!r}"
        return ""


def _line(world: World, name: str, text: str = "hello") -> None:
    source = world.root / f"{name}.in"
    source.write_text(text)
    world.drop(
        name,
        "line" if len(text) < 1000 else "store",
        input_map={"source": str(source)},
        output_map={"target": str(world.out / f"{name}.out")},
    )


def _target(world: World, name: str, script: str) -> None:
    world.drop(name, script, output_map={"target": str(world.out / f"{name}.out")})


def _both(world: World, name: str) -> None:
    outputs = {"first": str(world.out / "first"), "second": str(world.out / "second")}
    world.drop(name, "both", output_map=outputs)


def _cancel(world: World, name: str) -> None:
    (world.dropbox / f"{name}.job.cancel").touch()


def _several(world: World) -> None:
    world.drop("bad", "lin")
    _target(world, "failing", "failing")
    _target(world, "empty", "empty")
    for name in ("big", "same"):
        _line(world, name, "x" * 70_000)
    _line(world, "small")
    _both(world, "over")
    _target(world, "cancelled", "failing")
    _cancel(world, "cancelled")


OVER = {"first": ("older first", "one\n"), "second": (None, "two\n")}
KEPT = ("older", "older")

SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario(
            "one",
            lambda world: _line(world, "one"),
            {"one": Expected("completed", {"one.out": (None, "hello\n")})},
        ),
        Scenario("over", lambda world: _both(world, "over"), {"over": Expected("completed", OVER)}),
        Scenario(
            "failing",
            lambda world: _target(world, "failing", "failing"),
            {"failing": Expected("exit_code", {"failing.out": KEPT})},
        ),
        Scenario(
            "rejected",
            lambda world: world.drop("bad", "lin") and None,
            {"bad": Expected("rejected")},
        ),
        Scenario(
            "cancelled",
            lambda world: _target(world, "cancelled", "failing"),
            {"cancelled": Expected("cancelled", {"cancelled.out": KEPT})},
            between=lambda world, number: _cancel(world, "cancelled") if number == 1 else None,
            idle=3,
        ),
        Scenario(
            "deadly",
            lambda world: _target(world, "deadly", "deadly"),
            {"deadly": Expected("pilot_died", {"deadly.out": KEPT})},
            starts=3,
        ),
        Scenario(
            "several",
            _several,
            {
                "bad": Expected("rejected"),
                "failing": Expected("exit_code", {"failing.out": KEPT}),
                "empty": Expected("stage_out", {"empty.out": KEPT}),
                "big": Expected("completed", {"big.out": (None, "70000\n")}),
                "same": Expected("completed", {"same.out": ("older", "70000\n")}),
                "small": Expected("completed", {"small.out": (None, "hello\n")}),
                "over": Expected("completed", OVER),
                "cancelled": Expected("cancelled", {"cancelled.out": (None, None)}),
            },
        ),
    )
}
