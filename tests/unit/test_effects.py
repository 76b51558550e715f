"""Everything that changes a disk, a process or the other side goes through one layer.

That layer is `hpc_cluster.effects`, and for a service host's way to its cluster `hpc_batch.hosts`.
The sources are read as syntax trees: outside the layer no module may name a function that changes
something. What may is listed in ELSEWHERE, each with its reason.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
LAYER = ("on_hpc/hpc_cluster/effects.py", "tools/hpc_batch/hosts/")

ELSEWHERE = {
    "tools/hpc_batch/dropbox_files.py": "runs in users' programs, without the cluster's side",
    "tools/hpc_submit.py": "the same, for one function",
    "tools/from_checkout.py": "becomes another Python before anything of ours can be imported",
    "tools/hpc_batch/cli/": "an operator at a terminal: questions, pages, a first folder",
    "tools/hpc_batch/demo.py": "plays a user, in a folder of its own",
    "tools/hpc_batch/doctor/": "plays a user, in a folder of its own, and looks",
    "on_hpc/hpc_cluster/bell.py: os.write": "a pipe whose two ends are in this process",
    "tools/hpc_batch/doorbell.py: os.write": "the same",
    "tools/hpc_batch/threads.py: os._exit": "a process that ends itself, as a kill does",
    "tools/hpc_batch/state.py: filelock": "a lock ends with its process and holds nothing",
}
"""Path, or a path's beginning, or path and name: why it may."""

READING = """
    O_APPEND O_CLOEXEC O_CREAT O_DIRECTORY O_NOFOLLOW O_NONBLOCK O_RDONLY O_RDWR O_TRUNC O_WRONLY
    SEEK_SET P_PID PathLike WEXITED WNOHANG WNOWAIT R_OK W_OK X_OK
    access close devnull dup dup2 environ environb fdopen fsdecode fsencode fspath fstat getcwd
    geteuid getpgid getpid getppid getuid listdir lseek lstat major minor open path pipe pread
    preadv read readlink readv
    scandir set_blocking stat stat_result statvfs strerror umask uname urandom waitid walk
"""
"""Names in `os` that read, wait or only concern this process. `open` is one of them since the flags
that make it write are looked for by themselves."""

HARMLESS = {
    "os": frozenset(READING.split()),
    "shutil": frozenset({"which", "get_terminal_size"}),
    "subprocess": frozenset({"CompletedProcess", "DEVNULL", "PIPE", "Popen", "TimeoutExpired"}),
    "socket": frozenset({"gethostname"}),
    "fcntl": frozenset({"fcntl", "F_RDLCK", "F_SETLEASE", "F_UNLCK"}),
}
"""Modules of which only these names may be used."""

CALLED = {"subprocess.Popen", "subprocess.CompletedProcess"}
"""Types: naming them is harmless, calling them is not."""

WRITES = {"O_APPEND", "O_CREAT", "O_RDWR", "O_TRUNC", "O_WRONLY"}
"""Flags with which a file is opened to be changed."""

WRITING = CHECKOUT / "on_hpc/hpc_cluster/files/writing.py"
"""Passes them to the layer."""

FOREIGN = {"ctypes", "filelock", "paramiko", "fabric", "invoke", "tempfile", "multiprocessing"}
"""Modules that change something whatever of them is used."""

METHODS = frozenset(
    ["chmod", "hardlink_to", "link_to", "mkdir", "rename", "rmdir", "symlink_to", "touch", "unlink"]
    + ["write_bytes", "write_text"]
)
"""Of pathlib: whatever has one of these names and is none of ours."""

OURS = {"files", "effects", "disk"}
"""Modules of ours, and under what names they are imported, whose functions have such names."""


def sources() -> list[Path]:
    found = [*CHECKOUT.glob("tools/**/*.py"), *CHECKOUT.glob("on_hpc/**/*.py")]
    return [path for path in sorted(found) if not relative(path).startswith(LAYER)]


def relative(path: Path) -> str:
    return str(path.relative_to(CHECKOUT))


def effects_in(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the line and the name of whatever changes something in a source."""
    tree = ast.parse(path.read_bytes(), str(path))
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from imported(node)
        elif isinstance(node, ast.Call):
            yield from opened(node)
        elif isinstance(node, ast.Attribute) and changes(node, called, path):
            yield node.lineno, ast.unparse(node)


def changes(node: ast.Attribute, called: set[int], path: Path) -> bool:
    """Tell whether MODULE.NAME, or VALUE.METHOD, changes something."""
    base, _, name = ast.unparse(node).rpartition(".")
    if base in HARMLESS:
        return (
            name not in HARMLESS[base]
            or (f"{base}.{name}" in CALLED and id(node) in called)
            or (name in WRITES and path != WRITING)
        )
    if base == "logging":
        return name.endswith("FileHandler")
    return name in METHODS and base.rpartition(".")[2] not in OURS


def imported(node: ast.Import | ast.ImportFrom) -> Iterator[tuple[int, str]]:
    """Yield modules that change something, and names taken out of a module that may."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            if alias.name.partition(".")[0] in FOREIGN:
                yield node.lineno, alias.name
    elif node.level == 0:
        top = str(node.module).partition(".")[0]
        if top in FOREIGN | HARMLESS.keys():
            yield node.lineno, str(node.module)


def opened(node: ast.Call) -> Iterator[tuple[int, str]]:
    """Yield a call of the builtin `open` that is not for reading."""
    if isinstance(node.func, ast.Name) and node.func.id == "open":
        modes = [*node.args[1:2], *(k.value for k in node.keywords if k.arg == "mode")]
        if any(not isinstance(m, ast.Constant) or set(str(m.value)) & set("wax+") for m in modes):
            yield node.lineno, ast.unparse(node)


def allowed(path: str, name: str) -> bool:
    return any(f"{path}: {name}".startswith(reason) for reason in ELSEWHERE)


@pytest.mark.parametrize("path", sources(), ids=relative)
def test_nothing_outside_the_layer_changes_anything(path: Path) -> None:
    found = [
        f"line {line}: {name}"
        for line, name in effects_in(path)
        if not allowed(relative(path), name)
    ]
    assert not found, f"{relative(path)}: go through files or effects:\n" + "\n".join(found)


def test_every_exception_is_still_needed() -> None:
    needed = {
        reason
        for path in sources()
        for _, name in effects_in(path)
        for reason in ELSEWHERE
        if f"{relative(path)}: {name}".startswith(reason)
    }
    assert needed == set(ELSEWHERE)


@pytest.mark.parametrize(
    "line",
    [
        "os.rename(a, b)",
        "os.open(a, os.O_WRONLY)",
        "run = os.unlink",
        "open(a, 'w')",
        "open(a, mode=m)",
        "Path(a).write_text('x')",
        "path.unlink()",
        "subprocess.run(['a'])",
        "subprocess.Popen(['a'])",
        "shutil.rmtree(a)",
        "socket.socket()",
        "from os import rename",
        "import tempfile",
        "logging.FileHandler(a)",
        "os.kill(1, 9)",
    ],
)
def test_an_effect_is_seen(line: str, tmp_path: Path) -> None:
    source = tmp_path / "source.py"
    source.write_text(line + "\n")
    assert list(effects_in(source))


@pytest.mark.parametrize(
    "line",
    [
        "files.rename(a, b)",
        "open(a, 'rb')",
        "os.open(a, os.O_RDONLY)",
        "process: subprocess.Popen[bytes]",
        "text.replace('a', 'b')",
    ],
)
def test_what_only_looks_is_none(line: str, tmp_path: Path) -> None:
    source = tmp_path / "source.py"
    source.write_text(line + "\n")
    assert not list(effects_in(source))
