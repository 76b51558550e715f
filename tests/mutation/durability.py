"""Every place where something is made durable, found in the source, and the source without it.

A mutant of this kind leaves the call where it is, with all that it does, but for its syncs: those
are forgotten, as if the disk had been asked for nothing. Only a test that knows what a power cut
takes away can notice. Within `files.writing` itself the calls that sync are dropped.

They are not listed by hand, so a new call is a new mutant; those that keep no promise are named,
with the reason, in LEFT_OUT.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOM = "on_hpc/hpc_cluster/durable.py"

WRITING = "on_hpc/hpc_cluster/files/writing.py"

DURABLE = re.compile(
    r"durable\.sync_\w+|files\.(append|overwrite|reserve_all|replace_all|replace|write_end)"
    r"|pilot\.(write|tell)|write|self\._sync|self\._disk\.sync"
    r"|(\w+\.)*_?records\.(save_all|add_all|remove_all)|self\.save_all"
    r"|(self\.)?_?state\.write|self\.write"
)
"""What calls are written like that make something durable, in the modules of WRITERS."""

WRITERS = {
    "write": "on_hpc/hpc_cluster/pilot.py",
    "self.write": "tools/hpc_batch/state.py",
    "self._sync": "on_hpc/hpc_cluster/spool.py",
}
"""Names that mean this in one module only."""

LEFT_OUT = {
    "checkup:_write:durable.sync_file": "tries whether the disk takes it; the file goes at once",
    "inspection:workspace_problem:files.replace": "the same, on a node",
    "heartbeat:Heartbeat.run:files.overwrite": "shows other nodes that it lives, not a later boot",
    "pilot:observe:write": "an observer's memory; without it it observes for longer",
    "failure:_write:files.overwrite": "what status shows; the next pass says it again",
    "failure:_write:files.replace": "the same",
    "init:_written:durable.sync_file": "a new configuration, before anything was promised",
    "init:_written:durable.sync_folder": "the same",
    "site:write_traceback:files.append": "a traceback for people",
    "tidying:_history:files.replace": "old lines of the history; the worst is that they are back",
    "attempt:Attempt._write_big_result:durable.sync_files": "early; `handover` does it again",
    "attempt:Attempt._write_big_result:durable.sync_folders": "the same",
    "answer:Answers.clean:self._records.remove_all": "a record that comes back is cleaned again",
    "intake:Intake.discard:self.records.remove_all": "the same",
    "operator:pause:files.replace": "an operator's word; status shows whether it is there",
    "slots:_make:durable.sync_file": "of an empty file, for file systems that want it",
    "durable:sync_folders:_sync_file_systems": "without it threads sync each folder",
    "writeback:Writeback._sync:durable.sync_descriptor": "early; the sync at its end does it again",
    "collecting:_fetcher.fetch:durable.sync_descriptor": "early; `collect` does it again",
    "restore:_restored:records.remove_all": "what comes back is removed again",
    "landing:land:durable.sync_folder": "deploy tells; what is not there is deployed again",
    "landing:_unpack:durable.sync_files": "the same: a digest tells whether an edition is whole",
    "landing:_unpack:durable.sync_folders": "the same",
    "landing:_unpack:durable.sync_folder": "the same",
}
"""What makes something durable and keeps no promise with it: calls, and what else they are for."""

PRIMITIVE = re.compile(r"(durable\.)?sync_\w+|effects\.(fsync|syncfs)|_sync_\w+")
"""The same within `durable` and `files.writing`."""

FORGETFUL = '''

class _Forgetful:
    """The effects, of which those that make durable do nothing while `forgetting` is on."""

    def __getattr__(self, name):
        found = getattr(_effects, name)
        if name in ("fsync", "syncfs") and getattr(_here, "forgetting", False):
            return lambda descriptor: None
        return found


def forgetting(call):
    """Make a call, and forget its syncs."""
    _here.forgetting = True
    try:
        return call()
    finally:
        _here.forgetting = False


_here = threading.local()
_effects = effects
effects = _Forgetful()
'''
"""What is added to `durable` in a mutant."""

SHARED = "\n\neffects = durable.effects\n"
"""The same of `files.writing`."""

FORGETTING = '__import__("hpc_cluster.durable", fromlist=["durable"]).forgetting'


@dataclass(frozen=True)
class Site:
    """One call that makes something durable."""

    path: str
    """Of the module, below the checkout."""
    name: str
    """module:function:call, and a number where there are several."""
    begin: int
    end: int
    """Where the call stands in the module's bytes."""


def sites(checkout: Path) -> list[Site]:
    """Return every call that makes something durable, on both sides, but those LEFT_OUT."""
    return [site for site in every(checkout) if site.name not in LEFT_OUT]


def every(checkout: Path) -> list[Site]:
    """Return every call that makes something durable, on both sides."""
    found = []
    for top in ("on_hpc/hpc_cluster", "tools/hpc_batch"):
        for path in sorted((checkout / top).rglob("*.py")):
            found += list(_sites(path, str(path.relative_to(checkout))))
    return found


def without(checkout: Path, site: Site) -> dict[str, bytes]:
    """Return the changed modules of a mutant: path below the checkout, new content."""
    data = (checkout / site.path).read_bytes()
    call = data[site.begin : site.end]
    if site.path in (ROOM, WRITING):
        return {site.path: data[: site.begin] + b"None" + data[site.end :]}
    changed = f"{FORGETTING}(lambda: ".encode() + call + b")"
    return {
        site.path: data[: site.begin] + changed + data[site.end :],
        ROOM: (checkout / ROOM).read_bytes() + FORGETFUL.encode(),
        WRITING: (checkout / WRITING).read_bytes() + SHARED.encode(),
    }


def _sites(path: Path, relative: str) -> Iterator[Site]:
    data = path.read_bytes()
    starts = [0]
    for line in data.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    wanted = PRIMITIVE if relative in (ROOM, WRITING) else DURABLE
    counts: dict[str, int] = {}
    for function, call in _calls(ast.parse(data), ""):
        text = ast.unparse(call.func)
        if not wanted.fullmatch(text) or WRITERS.get(text, relative) != relative:
            continue
        assert call.end_lineno is not None and call.end_col_offset is not None
        name = f"{path.stem}:{function}:{text}"
        counts[name] = counts.get(name, 0) + 1
        yield Site(
            relative,
            name if counts[name] == 1 else f"{name}:{counts[name]}",
            starts[call.lineno - 1] + call.col_offset,
            starts[call.end_lineno - 1] + call.end_col_offset,
        )


def _calls(node: ast.AST, function: str) -> Iterator[tuple[str, ast.Call]]:
    """Yield every call with the name of the function it stands in."""
    for child in ast.iter_child_nodes(node):
        inner = function
        if isinstance(child, (ast.FunctionDef, ast.ClassDef)):
            inner = f"{function}.{child.name}".lstrip(".")
        if isinstance(child, ast.Call):
            yield function, child
        yield from _calls(child, inner)
