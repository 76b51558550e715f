"""README tells the truth: its commands are run, in its order, and its samples are read.

The commands run in a copy of the checkout, with a home folder of their own. `SUBSTITUTIONS` is what
is changed in them: paths of the reader's machine, and what would download or run for minutes. This
process's installed packages stand in for the downloads; the cluster is this machine.
"""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import yaml

from hpc_batch import config

README = Path(__file__).resolve().parents[2] / "README.md"
LEFT_OUT = re.compile(r"\.git|\.venv.*|\.\w+_cache|\.hypothesis|quickstart|dropbox\.state")
SUBSTITUTIONS = [
    ("./tests/run ", "./tests/run -q tests/unit/test_layout.py -k grammar "),
    ("/tmp/", "{media}/"),
    ("/srv/hpc_batch/", "{checkout}/"),
]


def left_out(folder: str, names: list[str]) -> list[str]:
    """Return what of a folder of the checkout is not copied: what work in it leaves behind."""
    if Path(folder) == README.parent:
        return [name for name in names if LEFT_OUT.fullmatch(name)]
    return ["__pycache__"]


def blocks(kind: str) -> list[str]:
    """Return the fenced blocks of one kind, in order."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)
    return [text for found, text in fenced if found == kind]


class Reader:
    """Someone who follows README on a machine of their own."""

    def __init__(self, folder: Path) -> None:
        self.checkout, self.home, self.media = (folder / n for n in ("checkout", "home", "media"))
        shutil.copytree(README.parent, self.checkout, ignore=left_out)
        self.home.mkdir()
        self.media.mkdir()
        (self.media / "foo.mp3").write_bytes(b"not really music")
        packages = sysconfig.get_path("purelib")
        fakes = self.checkout / "tests/fakebin"
        self.environment = {
            **{k: v for k, v in os.environ.items() if k.startswith("PIP_") or k == "TMPDIR"},
            "HOME": str(self.home),
            "PATH": f"{fakes}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "LC_ALL": "C.UTF-8",
            "RECORD": str(folder / "calls"),
        }
        self._environment_without_downloads(packages)

    def _environment_without_downloads(self, packages: str) -> None:
        """Make the checkout's .venv as its set-up would, with this process's packages in it."""
        made = "set -eu; source tools/setup.sh; for e in run test lint; do wanted $e > {}; done"
        stamps = made.format('"$venv/.hpc_batch-$e"')
        self.run(f"{sys.executable} -m venv --without-pip .venv")
        (library,) = (self.checkout / ".venv/lib").glob("python3*/site-packages")
        (library / "packages.pth").write_text(f"{packages}\n")
        self.run(stamps)

    def run(self, commands: str) -> str:
        """Run shell commands in the checkout, all must succeed; return what they print."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands],
            cwd=self.checkout,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=200,
        )
        assert done.returncode == 0, f"{commands}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def processes(self) -> list[bytes]:
        """Return the command lines of processes that work in the checkout."""
        found = []
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):  # RACE: it ended between the two looks.
                found.append(entry.read_bytes())
        return [line for line in found if os.fsencode(self.checkout) in line]

    def here(self, text: str) -> str:
        """Return a text of README as it is on this machine."""
        for written, meant in SUBSTITUTIONS:
            text = text.replace(written, meant.format(media=self.media, checkout=self.checkout))
        return text

    @contextmanager
    def cron(self, line: str) -> Iterator[None]:
        """Run a cron line's command again and again, as cron does once a minute."""
        command, stop = self.here(line).split(None, 5)[5], threading.Event()

        def passes() -> None:
            while not stop.wait(0.5):
                said.append(self.run(command))

        said: list[str] = []
        thread = threading.Thread(target=passes)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
        assert set(said) == {""}, "cron would send mail"


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    """One reader, who keeps what the steps before have made."""
    return Reader(tmp_path_factory.mktemp("readme"))


def sample() -> tuple[str, str]:
    """Return the job file and its answer that stand side by side in README."""
    (block,) = [b for b in blocks("") if b.startswith("thing.job ")]
    lines = block.splitlines()
    width = lines[0].index("thing.job.finished")
    columns = [(line[:width].rstrip(), line[width:]) for line in lines[2:]]
    return "\n".join(c[0] for c in columns).strip() + "\n", "\n".join(c[1] for c in columns)


def test_the_first_two_commands_do_what_they_say(reader: Reader) -> None:
    printed = reader.run(reader.here(blocks("sh")[0]))
    assert "passed" in printed
    assert any((reader.checkout / "quickstart").iterdir())
    assert reader.processes() == []


def test_quickstart_may_be_repeated_and_leaves_no_process_behind(reader: Reader) -> None:
    for _ in range(2):
        printed = reader.run("./tools/quickstart")
        assert reader.processes() == []
        assert re.search(r"segments\s+ok\s+completed", printed)
        assert re.search(r"no_audio\s+error\s+exit_code", printed)
    paths = [Path(line) for line in printed.splitlines() if line.startswith("/")]
    assert {path.suffix for path in paths} >= {".finished", ".csv", ".json"}
    assert all(path.is_file() for path in paths)


def test_the_sample_template_is_the_one_that_ships() -> None:
    (block,) = blocks("bash")
    shipped = (README.parent / "templates/my_container.template").read_text()
    assert [line for line in shipped.splitlines() if line and line[:2] not in {"# ", "#"}] == (
        block.splitlines()
    )


def test_the_commands_lead_from_a_configuration_to_an_answer(reader: Reader) -> None:
    sample_config, check, use = map(reader.here, blocks("sh")[1:])
    reader.run(sample_config)
    ini = reader.checkout / "hpc_batch.ini"
    (written,) = blocks("ini")
    ini.write_text(written)
    ini.chmod(0o600)
    assert config.load(ini).hpc.gres == "gpu:1"

    local = configparser.ConfigParser(interpolation=None)
    local.read_string(reader.here(written))
    local["remote"] = {"transport": "local"}
    local["hpc"] = {"scheduler": "local"}
    local["pilot"] = {"linger": "0"}
    local["hpc_env"]["workspace"] = str(reader.home / "workspace")
    local["hpc_env"]["scripts"] = str(reader.checkout / "on_hpc/scripts")
    with ini.open("w") as file:
        local.write(file)
    assert reader.run(check)

    job, answer = sample()
    (reader.checkout / "thing.job").write_text(reader.here(job))
    (line,) = blocks("cron")
    with reader.cron(line):
        printed = reader.run(use)
        (python,) = blocks("python")
        program = f"PYTHONPATH=tools .venv/bin/python - <<'PY'\n{reader.here(python)}PY\n"
        assert reader.run(program) == "processed OK\n"
    assert "thing" in printed

    real = (reader.checkout / "dropbox/thing.job.finished").read_text()
    for number, expected in enumerate(reader.here(answer).splitlines()):
        pattern = re.escape(expected).replace(r"\.\.\.", ".*")
        assert re.fullmatch(pattern, real.splitlines()[number]), expected
    node = yaml.safe_load(real)["job"]
    assert (node["status"], node["message"]) == ("ok", "processed OK")
