"""Runs scripts by real shells and records what their programs receive, byte for byte.

`probe` records its arguments, `pin` its standard input, `canary` that it was run: if a value is
ever executed, that is what it executes. All three are one small program, written in C where there
is a compiler. Many scripts are run by one loop, because starting processes from Python is slow.
"""

from __future__ import annotations

import functools
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Sequence

FULL = bool(os.environ.get("HPC_BATCH_FULL"))
"""Run the large counts."""

SHELLS = {"bash": shutil.which("bash"), "sh": shutil.which("dash") or shutil.which("sh")}

_C = r"""
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static char buffer[1 << 22];
static size_t used;
static void put(const void *data, size_t length) {
    if (used + length + 4 > sizeof buffer) exit(99);
    unsigned int n = length;
    memcpy(buffer + used, &n, 4);
    memcpy(buffer + used + 4, data, length);
    used += 4 + length;
}
int main(int argc, char **argv) {
    const char *name = strrchr(argv[0], '/');
    name = name ? name + 1 : argv[0];
    const char *path = getenv("PROBE_OUT");
    int out = path ? open(path, O_WRONLY | O_CREAT | O_APPEND, 0600) : -1;
    if (out < 0) return 98;
    used = 4;
    put(name, strlen(name));
    if (!strcmp(name, "pin")) {
        static char data[1 << 21];
        size_t length = 0;
        ssize_t got;
        while ((got = read(0, data + length, sizeof data - length)) > 0) length += got;
        put(data, length);
    } else {
        for (int i = 1; i < argc; i++) put(argv[i], strlen(argv[i]));
    }
    unsigned int total = used - 4;
    memcpy(buffer, &total, 4);
    return write(out, buffer, used) == (ssize_t)used ? 0 : 97;
}
"""

_KINDS = (["-O1", "-static"], ["-O1"])
"""A static program starts in half the time."""

_PYTHON = r"""#!{python}
import os, struct, sys
name = os.path.basename(sys.argv[0])
rest = [sys.stdin.buffer.read()] if name == "pin" else [os.fsencode(a) for a in sys.argv[1:]]
body = b"".join(struct.pack("=I", len(p)) + p for p in [name.encode()] + rest)
out = os.open(os.environ["PROBE_OUT"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
os.write(out, struct.pack("=I", len(body)) + body)
"""

_LOOP = """
for script in "$1"/*.script; do
    PROBE_OUT=$script.out "$2" "$script" </dev/null >/dev/null 2>"$script.err"
done
"""

Call = tuple[str, tuple[bytes, ...]]


@dataclass(frozen=True)
class Outcome:
    """What one script did."""

    calls: tuple[Call, ...]
    """Each program's name, and its arguments or its standard input."""
    stderr: bytes


class Lab:
    """A folder with the probe, and the shells to try."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir()
        probe = self.bin / "probe"
        compiler = shutil.which("cc") or shutil.which("gcc")
        source = folder / "probe.c"
        source.write_text(_C)
        built = compiler is not None and any(
            subprocess.run(
                [compiler, *kind, "-w", "-o", str(probe), str(source)],
                capture_output=True,
                check=False,
            ).returncode
            == 0
            for kind in _KINDS
        )
        if not built:
            probe.write_text(_PYTHON.replace("{python}", sys.executable))
            probe.chmod(0o700)
        for name in ("pin", "canary"):
            os.link(probe, self.bin / name)

    def run(self, scripts: Sequence[bytes], shell: str, locale: str = "C.UTF-8") -> list[Outcome]:
        """Run scripts by `bash` or `sh`, each in a process of its own."""
        program = SHELLS[shell]
        assert program is not None
        with tempfile.TemporaryDirectory(dir=self.folder) as name:
            folder = Path(name)
            paths = [folder / f"{number:06}.script" for number in range(len(scripts))]
            for path, script in zip(paths, scripts):
                path.write_bytes(script)
            work = folder / "work"
            work.mkdir()
            environment = {
                "PATH": f"{self.bin}:/usr/bin:/bin",
                "LC_ALL": locale,
                "HOME": "/h",
                "TMPD": str(work),
            }
            argv = ["/bin/sh", "-c", _LOOP, "loop", str(folder), program]
            subprocess.run(argv, env=environment, cwd=work, check=False, timeout=600)
            return [_outcome(path) for path in paths]


def _outcome(path: Path) -> Outcome:
    out = path.with_name(path.name + ".out")
    data = out.read_bytes() if out.exists() else b""
    calls: list[Call] = []
    while data:
        (total,) = struct.unpack_from("=I", data)
        record, data = data[4 : 4 + total], data[4 + total :]
        parts = []
        while record:
            (length,) = struct.unpack_from("=I", record)
            parts.append(record[4 : 4 + length])
            record = record[4 + length :]
        calls.append((parts[0].decode(), tuple(parts[1:])))
    return Outcome(tuple(calls), path.with_name(path.name + ".err").read_bytes())


@functools.cache
def _holder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="shell-lab-")


@functools.cache
def shell_lab() -> Lab:
    """Return the lab of this process; it goes away with the process."""
    return Lab(Path(_holder().name))


NASTY: tuple[bytes, ...] = (
    b"",
    b" ",
    b"plain",
    b'it\'s $(canary) "x".mp3',
    b"$(canary)",
    b"`canary`",
    b"${x:-$(canary)}",
    b"$((a[$(canary)]))",
    b"a[$(canary)]",
    b"; canary ;",
    b"\ncanary\n",
    b"' ; canary ; '",
    b'" ; canary ; "',
    b"'\"'\"' ; canary ; '\"'\"'",
    b"\\' ; canary #",
    b"| canary",
    b"&& canary",
    b"& canary &",
    b"<(canary)",
    b">(canary)",
    b"EOF\ncanary",
    b"EOF",
    b"EOF\n",
    b"A\nB\nEOF\n\tEOF\ncanary\n",
    b"E F\ncanary",
    b"END_C\ncanary",
    b"$x ${HOME} $1 $@ $* $$ $? $! $-",
    b"* ? [a-z] {a,b} {1..3}",
    b"~",
    b"~/x",
    b"-n",
    b"-e",
    b"--",
    b"-rf",
    b"a=b",
    b"2",
    b">x",
    b"2>x",
    b"if",
    b"}",
    b")",
    b"))",
    b";;",
    b"esac",
    b"#x",
    b" # x",
    b"!",
    b"!!",
    b"!$",
    b"\\",
    b"\\\\",
    b"a\\",
    b"a\\\n",
    b"\\n\\t\\0101\\x41",
    b"%s %d %%",
    b"&",
    b"\n",
    b"\n\n",
    b"a\n",
    b"\na",
    b"\t",
    b"\ta\t",
    b"\r",
    b"a\r\nb",
    b"\x01",
    b"\x7f",
    b"\x01\x7f",
    b"b \x7f",
    b"\x01\x01\x7f\x7f\x01",
    b"\x81\x82\x83\x84\x85\x86\x87\x88",
    b"\xff\xfe",
    b"\x80",
    b"\xc3",
    b"caf\xc3\xa9 \xe6\x97\xa5\xe6\x9c\xac",
    b"\xe2\x80\xae rtl \xf0\x9f\x98\x80",
    b"E\xb8J",
    b"EO\xffF",
    b"\x1b[31m\x07",
    b"#$ -l h_rt=1\n#SBATCH --x",
    b"<<x>>",
    b"<<EOF",
    b"\xc2\xabx\xc2\xbb",
    b"HPC_V_x",
    b"${HPC_V_x}",
    b'"${HPC_V_x}"',
    b"$HPC_NL",
    b"'",
    b'"',
    b"`",
    b"$",
    b"${",
    b"$(",
    b"$((",
    b"''",
    b'""',
    b"'''",
    b"$'\\n'",
    b'$"x"',
    b"/",
    b"../../x",
    b"a/b c/d",
    b",",
    b":",
    b"[[ $(canary) ]]",
    b"x" * 3000,
    bytes(range(1, 256)),
)
"""Values that have broken something somewhere."""
