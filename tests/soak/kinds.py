"""The kinds of jobs of a soak, and how each must end when nobody disturbs it.

Every drop carries a word of its own (`x-submission`), which its answer repeats. A job writes its id
and its attempt into each output, then its input, then `end`: so an output tells which attempt it is
from and whether it is whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

NOTE = 'echo "{what} $HPC_BATCH_JOB_ID $HPC_BATCH_ATTEMPT $HPC_BATCH_PILOT" >> <<journal>>\n'
WRITE = '{{ echo "$HPC_BATCH_JOB_ID $HPC_BATCH_ATTEMPT"; cat <<source>>; echo end; }} > {to}\n'

TEMPLATES = {
    "work": (
        "#!/bin/sh\n"
        + NOTE.format(what="start")
        + "[ <<pause>> = 0 ] || sleep <<pause>>\n"
        + WRITE.format(to="<<first>>")
        + WRITE.format(to="<<second>>")
        + NOTE.format(what="end")
        + "echo said; exit <<code>>\n"
    ),
    "half": (
        "#!/bin/sh\n# <<second>> is never made, and <<pause>> and <<code>> are of no use\n"
        + NOTE.format(what="start")
        + WRITE.format(to="<<first>>")
        + NOTE.format(what="end")
    ),
    "long": (
        "#!/bin/sh\n#HPC --time-limit=1s\n# <<first>> <<second>> <<source>> <<pause>> <<code>>\n"
        + NOTE.format(what="start")
        + "exec sleep 120\n"
    ),
}

OLDER = "older "
"""Begins what stood at an output's path before the drop."""


@dataclass(frozen=True)
class Kind:
    """One kind of job."""

    share: int
    """So many in a hundred drops, about."""
    status: str
    """As in the undisturbed answer; so are the following."""
    reason: str
    rc: int | None
    script: str = "work"
    code: int = 0
    """The job's own return code."""
    pauses: tuple[float, ...] = (0,)
    """How long it may take in seconds, at least."""
    older: bool = False
    """Something stands at its outputs' paths before."""
    cancel: bool = False
    """Its user asks for its end at some moment; the undisturbed answer counts as well."""
    again: bool = False
    """Its name and its outputs are used again as soon as it is answered."""
    big: bool = False
    """Its input is large enough for the store, and shared."""
    slowly: bool = False
    """Its drop is written in place, in pieces."""
    lacks: str = ""
    """A key that it leaves out."""


KINDS = {
    "good": Kind(40, "ok", "completed", 0, pauses=(0, 0, 0, 0.1, 0.3)),
    "over": Kind(8, "ok", "completed", 0, older=True),
    "slow": Kind(8, "ok", "completed", 0, pauses=(1, 2, 3)),
    "big": Kind(4, "ok", "completed", 0, big=True),
    "again": Kind(9, "ok", "completed", 0, again=True),
    "slowly": Kind(5, "ok", "completed", 0, slowly=True),
    "fail": Kind(7, "error", "exit_code", 3, code=3, older=True),
    "half": Kind(4, "error", "stage_out", 0, script="half", older=True),
    "long": Kind(1, "error", "time_limit", None, script="long"),
    "unknown": Kind(3, "error", "rejected", None, script="nobody_knows_it", older=True),
    "unmapped": Kind(2, "error", "rejected", None, lacks="args"),
    "homeless": Kind(2, "error", "rejected", None, lacks="source"),
    "cancelled": Kind(7, "ok", "completed", 0, pauses=(0, 0.5, 2), cancel=True),
}


@dataclass(frozen=True)
class Drop:
    """One drop of one user."""

    word: str
    name: str
    """NAME of NAME.job."""
    kind: str
    line: str
    """Its input is this line…"""
    lines: int
    """…so many times."""
    text: bytes
    """The job file."""
    outputs: dict[str, str] = field(default_factory=dict)
    """Key: path."""


def choose(chance: random.Random) -> str:
    """Return a kind, each as often as its share says."""
    return chance.choices(list(KINDS), [kind.share for kind in KINDS.values()])[0]


def make(word: str, name: str, kind: str, root: Path, journal: str, chance: random.Random) -> Drop:
    """Prepare a drop below a service host's folder: its input, what stands at its outputs."""
    what = KINDS[kind]
    stem = name if what.again else word
    outputs = {key: str(root / "out" / f"{stem}.{key}") for key in ("first", "second")}
    if what.big:
        path, lines = root / "in" / f"shared{chance.randrange(5)}", 20_000
    else:
        path, lines = root / "in" / word, chance.choice((1, 10, 400))
    if not (what.big and path.exists()):
        draft = path.with_suffix(".draft")
        draft.write_text(f"{path.name}\n" * lines)
        draft.rename(path)
    if what.older:
        _stand(outputs.values(), OLDER + word)
    inputs = {"source": f"{path}.missing" if what.lacks == "source" else str(path)}
    job: dict[str, Any] = {
        "script": what.script,
        "args": {"journal": journal, "pause": f"{chance.choice(what.pauses):g}", "code": what.code},
        "input_map": inputs,
        "output_map": outputs,
        "x-submission": word,
    }
    if what.lacks == "args":
        del job["args"]["pause"]
    text = yaml.safe_dump(job).encode()
    if not what.slowly:
        text += b"...\n"
    return Drop(word, name, kind, path.name, lines, text, outputs)


def _stand(paths: Iterable[str], text: str) -> None:
    """Put what is older at outputs' paths, or nothing at all. Raises OSError: the disk is full."""
    written = []
    try:
        for path in map(Path, paths):
            written.append(path)
            path.write_text(text)
    except OSError:
        for path in written:
            with contextlib.suppress(OSError):
                path.unlink()
        raise


def content(job: str, attempt: int, line: str, lines: int) -> bytes:
    """Return what each output of an attempt must hold."""
    return f"{job} {attempt}\n{(line + chr(10)) * lines}end\n".encode()


def digest(data: bytes | None) -> str | None:
    """Return how the history names what a file holds; None where there is none."""
    return None if data is None else hashlib.sha256(data).hexdigest()
