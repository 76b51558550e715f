"""The house rules that no reviewer should have to check: who imports whom, and what lies where.

Everything here reads the source as text or as a syntax tree; nothing is imported. `LAYERS` is the
one table of the modules of hpc_batch: a new module gets its line there. `FOREIGN` says which parts
may import which installed package.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
TOOLS = CHECKOUT / "tools"
ON_HPC = CHECKOUT / "on_hpc"

LAYERS = {
    "errors": "errors",
    "values": (
        "amounts config fitting jobfile journal lingering plan reasons stuck template waiting"
    ),
    "effects": (
        "access admission ahead answer bulk collecting connection conversation crontab "
        "data_channel deployment description doorbell elapsed errand failure far_end foresight "
        "hosts inputs intake lane listing logbook mending node placing policy portions receiving "
        "record records report restore sending session settling sight staging state steps "
        "threads tidings tidying trash travel trouble upkeep"
    ),
    "submitter": "submitter",
    "cli": "cli demo doctor explanation",
}
"""From the ground up: a module may import its own layer and those below."""

READERS = ["client", "dropbox_files", "selection", "status"]
"""They stand on values alone, and may be used by the command line."""

FOREIGN = {
    "yaml": {"config", "jobfile"},
    "jinja2": {"template"},
    "filelock": {"state", "submitter"},
    "fabric": {"hosts"},
    "inotify_simple": {"doorbell"},
    "invoke": {"hosts"},
    "paramiko": {"hosts"},
    "rich": {"cli"},
}
"""Installed package: the parts of hpc_batch that may import it."""

TOP_LEVEL = {
    *{".ci", ".gitignore", "LICENSE", "NEWS.md", "README.md"},
    *{"pyproject.toml", "ruff.toml", "setup.cfg"},
    *{"docs", "dropbox", "on_hpc", "templates", "tests", "tools"},
}


@dataclass(frozen=True)
class Import:
    """One module that a source file imports, at its top or inside a function."""

    module: str
    line: int
    typing_only: bool
    """Seen by the type checker alone."""
    late: bool
    """Inside a function, so carried out when that is called."""


def imports(path: Path, module: str = "") -> Iterator[Import]:
    """Yield what a file imports; `module` is its own dotted name, for relative imports."""
    tree = ast.parse(path.read_bytes(), str(path))
    typing_only = {
        child
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for part in node.body
        for child in ast.walk(part)
    }
    late = {
        child
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = module if path.name == "__init__.py" else module.rpartition(".")[0]
            for _ in range(node.level - 1):
                package = package.rpartition(".")[0]
            source = ".".join(filter(None, [package if node.level else "", node.module or ""]))
            names = [
                name if source_of(name := f"{source}.{alias.name}") else source
                for alias in node.names
            ]
        else:
            continue
        for name in names:
            yield Import(name, node.lineno, node in typing_only, node in late)


def source_of(module: str) -> Path | None:
    """Return the file of one of our own modules, None for any other name."""
    for root in (TOOLS, ON_HPC):
        path = root.joinpath(*module.split("."))
        for candidate in (path.with_suffix(".py"), path / "__init__.py"):
            if candidate.is_file():
                return candidate
    return None


def modules_below(root: Path, package: str) -> dict[str, Path]:
    """Return the modules of a package by dotted name."""
    found = {}
    for path in sorted((root / package).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(p for p in parts if p != "__init__")] = path
    return found


HPC_BATCH = modules_below(TOOLS, "hpc_batch")
HPC_CLUSTER = modules_below(ON_HPC, "hpc_cluster")


def python_programs(folder: Path) -> list[Path]:
    """Return the Python files without a suffix (programs) in a folder."""
    return [
        path
        for path in sorted(folder.iterdir())
        if path.is_file() and not path.suffix and b"python" in path.read_bytes()[:64]
    ]


def part_of(module: str) -> str:
    """Return the part of hpc_batch that a module belongs to: hosts for hpc_batch.hosts.fabric."""
    return (module.split(".") + [""])[1]


def rank(part: str) -> int:
    """Return the number of a part's layer, from the ground up."""
    for number, parts in enumerate(LAYERS.values()):
        if part in parts.split():
            return number
    pytest.fail(f"{part} is unknown: add it to LAYERS in {Path(__file__).name}")


def test_every_module_of_hpc_batch_has_its_line_in_the_table() -> None:
    known = {part for parts in LAYERS.values() for part in parts.split()} | set(READERS) | {""}
    unknown = {part_of(module) for module in HPC_BATCH} - known
    assert not unknown, f"add to LAYERS in {Path(__file__).name}: {sorted(unknown)}"


@pytest.mark.parametrize("module", HPC_BATCH)
def test_a_module_imports_its_own_layer_and_those_below(module: str) -> None:
    part, wrong = part_of(module), []
    for found in imports(HPC_BATCH[module], module):
        if not found.module.startswith("hpc_batch") or found.typing_only:
            continue
        target = part_of(found.module)
        if part == "":
            allowed = target in {"errors", *READERS}
        elif part in READERS:
            allowed = target in {"", "errors", *READERS} or rank(target) <= rank("config")
        elif target in READERS or target == "":
            allowed = rank(part) == rank("cli")
        else:
            allowed = rank(target) <= rank(part)
        if not allowed:
            wrong.append(f"line {found.line}: {module} must not import {found.module}")
    assert not wrong, "\n".join(wrong)


def test_no_modules_import_each_other_in_a_circle() -> None:
    ours = {**HPC_BATCH, **HPC_CLUSTER}
    needs = {
        module: {
            found.module
            for found in imports(path, module)
            if found.module in ours
            and found.module != module
            and not (found.typing_only or found.late)
        }
        for module, path in ours.items()
    }
    while needs:
        free = {module for module, targets in needs.items() if not targets & needs.keys()}
        assert free, f"imported in a circle: {sorted(needs)}"
        needs = {module: targets for module, targets in needs.items() if module not in free}


@pytest.mark.parametrize("module", HPC_BATCH)
def test_installed_packages_are_imported_only_where_they_belong(module: str) -> None:
    wrong = []
    for found in imports(HPC_BATCH[module], module):
        top = found.module.partition(".")[0]
        if is_standard_library(top) or top in {"hpc_batch", "hpc_cluster"}:
            continue
        if part_of(module) not in FOREIGN.get(top, set()):
            wrong.append(f"line {found.line}: {module} must not import {found.module}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("start", ["hpc_batch", "hpc_batch.client", "hpc_submit"])
def test_the_client_needs_the_standard_library_and_yaml_only(start: str) -> None:
    waiting, seen, outside = [start], set(), set()
    while waiting:
        module = waiting.pop()
        if module in seen:
            continue
        seen.add(module)
        path = source_of(module)
        if path is None:
            outside.add(module.partition(".")[0])
            continue
        waiting += [f.module for f in imports(path, module) if not f.typing_only]
        waiting += [module.rpartition(".")[0]] if "." in module else []
    foreign = {name for name in outside if not is_standard_library(name)}
    assert foreign <= {"yaml"}, f"imported from {start} on: {sorted(seen)}"


def is_standard_library(name: str) -> bool:
    """Tell whether a top-level module comes with Python."""
    if sys.version_info < (3, 10):
        pytest.skip("Python 3.9 does not know the names of its own modules")
    return name in sys.stdlib_module_names


def cluster_files() -> dict[str, Path]:
    """Return every Python file of the cluster's side by its name."""
    programs = python_programs(ON_HPC) + python_programs(ON_HPC / "scripts")
    return {**HPC_CLUSTER, **{f"program {path.name}": path for path in programs}}


@pytest.mark.parametrize("name", cluster_files())
def test_the_clusters_side_needs_the_standard_library_only(name: str) -> None:
    module = "" if name.startswith("program") else name
    wrong = [
        f"line {found.line}: {found.module}"
        for found in imports(cluster_files()[name], module)
        if not is_standard_library(top := found.module.partition(".")[0]) and top != "hpc_cluster"
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", cluster_files())
def test_the_clusters_side_is_written_in_the_grammar_of_python_3_6(name: str) -> None:
    path = cluster_files()[name]
    tree = ast.parse(path.read_bytes(), str(path), feature_version=(3, 7))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "__future__":
            assert "annotations" not in [alias.name for alias in node.names], "Python 3.7"


def test_a_python_too_old_can_read_the_session_program_far_enough_to_refuse() -> None:
    newer = (ast.JoinedStr, ast.AnnAssign, ast.AsyncFunctionDef, ast.Nonlocal, ast.Starred)
    tree = ast.parse((ON_HPC / "scripts/hpc_session").read_bytes())
    for node in ast.walk(tree):
        assert not isinstance(node, newer), f"line {node.lineno} is not Python 2"
        if isinstance(node, ast.arg):
            assert node.annotation is None, f"line {node.lineno} is not Python 2"


@pytest.mark.parametrize(
    ("target", "folders"),
    [("3.6-", [ON_HPC]), ("3.9-", [TOOLS])],
    ids=["the cluster's side under 3.6", "the service host's side under 3.9"],
)
def test_nothing_newer_than_the_oldest_python_is_used(target: str, folders: list[Path]) -> None:
    vermin = Path(sys.executable).parent / "vermin"
    if not vermin.exists():
        pytest.skip("vermin is not installed: pip install vermin")
    annotations = ["--eval-annotations"] if target == "3.6-" else []
    command = [vermin, "--quiet", "--no-tips", "--violations", f"-t={target}", *annotations]
    done = subprocess.run([*command, *folders], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_top_level_is_as_it_was_fixed() -> None:
    assert {path.relative_to(CHECKOUT).parts[0] for path in tracked_files()} == TOP_LEVEL


def tracked_files() -> list[Path]:
    """Return the files of the project: those that git tracks, or all in an exported tree."""
    if shutil.which("git") and (CHECKOUT / ".git").exists():
        command = ["git", "-c", f"safe.directory={CHECKOUT}", "ls-files", "-z"]
        listed = subprocess.run(command, cwd=CHECKOUT, capture_output=True, check=True).stdout
        paths = [CHECKOUT / os.fsdecode(name) for name in listed.split(b"\0") if name]
        return [path for path in paths if path.is_file()]
    return [
        path
        for top in TOP_LEVEL
        for path in (
            [CHECKOUT / top] if (CHECKOUT / top).is_file() else (CHECKOUT / top).rglob("*")
        )
        if path.is_file() and path.suffix != ".pyc"
    ]


def test_the_project_stands_alone() -> None:
    elsewhere = re.compile(
        rb"/tmp/spec|\.\./shared|/work/(main|shared)|\bresearch/|(?<![\w/.-])"
        rb"(design|interface|style|spec)\.md"
    )
    found = [
        f"{path.relative_to(CHECKOUT)}:{number}: {line.decode(errors='replace').strip()}"
        for path in tracked_files()
        if path != Path(__file__)
        for number, line in enumerate(path.read_bytes().splitlines(), 1)
        if elsewhere.search(line)
    ]
    assert not found, "these point at papers outside the project:\n" + "\n".join(found)


def test_every_python_module_begins_with_what_it_is() -> None:
    bare = [
        str(path.relative_to(CHECKOUT))
        for path in tracked_files()
        if path.suffix == ".py" and ast.get_docstring(ast.parse(path.read_bytes())) is None
    ]
    assert not bare, f"without a docstring: {bare}"


def test_the_wheel_holds_every_package_and_template(checkout: Path) -> None:
    settings = (checkout / "setup.cfg").read_text()
    packages = {
        module for module, path in {**HPC_BATCH, **HPC_CLUSTER}.items() if path.stem == "__init__"
    }
    missing = [package for package in packages if f"\n    {package}\n" not in settings]
    assert not missing, f"add to [options] packages in setup.cfg: {missing}"
