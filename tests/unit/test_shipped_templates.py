"""The templates that ship are sound, and run: those that need a container with a fake one."""

from __future__ import annotations

import array
import csv
import hashlib
import json
import math
import os
import re
import shutil
import subprocess
import wave
from pathlib import Path

import pytest

from hpc_batch import template
from hpc_batch.errors import TemplateError

CHECKOUT = Path(__file__).resolve().parents[2]
FOLDER = CHECKOUT / "templates"
SCRIPTS = sorted(path.name.removesuffix(".template") for path in FOLDER.iterdir())

VALUES: dict[str, dict[str, str]] = {
    "checksum_manifest": {"file": "foo.mp3", "manifest": "foo.sha256"},
    "ina_speech_segmenter": {"audio": "foo.mp3", "segments": "foo.csv"},
    "kaldi": {"audio": "foo.mp3", "json_output": "foo.json", "txt_output": "foo.txt"},
    "my_container": {
        "level": "6",
        "input": "foo.mp3",
        "json_output": "foo.json",
        "txt_output": "foo.txt",
    },
    "segment_sound": {"audio": "foo.wav", "csv_output": "foo.csv", "json_output": "foo.json"},
    "self_test": {"data": "foo.mp3", "report": "foo.txt"},
}
"""For each template a job's values: inputs, outputs, and the arguments without a default."""

FILES = {
    *{"audio", "data", "file", "input"},
    *{"csv_output", "json_output", "manifest", "report", "segments", "txt_output"},
}
"""Which of these are the names of files."""

NASTY = '-it\'s "a" $(touch pwned) *.wav'


def render(script: str, workspace: Path, values: dict[str, str]) -> bytes:
    """Return the script of a job in `workspace`, with the names that an operator sets."""
    site = {"workspace": str(workspace), "containers": "/srv/containers", "scripts": "/srv/scripts"}
    files = values.keys() & FILES
    return template.render(template.load(FOLDER, script), values, site, files=files)


def run(script: str, workspace: Path, values: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a rendered template in its workspace, with the fake programs first on PATH."""
    job = workspace.parent / f"{workspace.name}.job.sh"
    job.write_bytes(render(script, workspace, values))
    job.chmod(0o700)
    path = f"{CHECKOUT / 'tests/fakebin'}:{os.environ['PATH']}"
    return subprocess.run(
        [job],
        cwd=workspace,
        env={**os.environ, "PATH": path, "RECORD": str(workspace.parent / "calls")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def calls(workspace: Path) -> list[list[str]]:
    """Return the argument lists that the fake singularity recorded."""
    return [json.loads(line) for line in (workspace.parent / "calls").read_text().splitlines()]


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A job's working folder."""
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


def record(path: Path, parts: list[tuple[float, float]], width: int = 2, channels: int = 1) -> None:
    """Write a WAV file: a tone of 440 Hz for each (seconds, amplitude from 0 to 1)."""
    rate, full = 8000, (1 << (8 * width - 1)) - 1
    samples = [
        round(full * amplitude * math.sin(2 * math.pi * 440 * n / rate))
        for seconds, amplitude in parts
        for n in range(round(seconds * rate))
    ]
    offset = 128 if width == 1 else 0
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(
            b"".join(
                (sample + offset).to_bytes(width, "little", signed=width > 1) * channels
                for sample in samples
            )
        )


def segments(path: Path) -> list[tuple[float, float, str]]:
    """Return the rows of a CSV file of segments."""
    with path.open(newline="") as file:
        return [(float(r["start"]), float(r["end"]), r["label"]) for r in csv.DictReader(file)]


def test_every_shipped_template_has_values_in_this_test() -> None:
    assert sorted(VALUES) == SCRIPTS


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_shipped_template_is_without_a_problem(script: str) -> None:
    loaded = template.load(FOLDER, script)
    assert template.lint(loaded) == []


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_shipped_template_says_what_it_needs(script: str) -> None:
    text = (FOLDER / f"{script}.template").read_text()
    header = text[: text.index("\n#HPC")]
    for word in ("Needs", "Inputs", "Outputs"):
        assert re.search(rf"^# {word} ", header, re.MULTILINE), word
    for name in VALUES[script]:
        assert re.search(rf"\b{name}\b", header), name


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_shipped_template_renders_to_valid_bash(script: str, workspace: Path) -> None:
    job = workspace / "job.sh"
    job.write_bytes(render(script, workspace, VALUES[script]))
    done = subprocess.run(["bash", "-n", job], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("width", [1, 2, 3, 4])
@pytest.mark.parametrize("channels", [1, 2])
def test_sound_is_told_from_silence(workspace: Path, width: int, channels: int) -> None:
    parts = [(1.0, 0), (2.0, 0.3), (0.5, 0), (1.5, 0.3), (0.1, 0), (1.0, 0.3), (2.0, 0)]
    record(workspace / "foo.wav", [*parts, (0.06, 0.4), (1.0, 0)], width, channels)
    done = run("segment_sound", workspace, VALUES["segment_sound"])
    assert (done.returncode, done.stderr) == (0, "")
    assert segments(workspace / "foo.csv") == [
        (0.0, 1.0, "silence"),
        (1.0, 3.0, "sound"),
        (3.0, 3.5, "silence"),
        (3.5, 6.1, "sound"),
        (6.1, 9.16, "silence"),
    ]
    summary = json.loads((workspace / "foo.json").read_text())
    assert (summary["duration_s"], summary["sound_s"]) == (9.16, 4.6)
    assert len(summary["segments"]) == 5
    assert done.stdout == "segments: 5; sound: 4.6 s of 9.2 s\n"


def test_the_arguments_of_a_segmentation_matter(workspace: Path) -> None:
    record(workspace / "foo.wav", [(1.0, 0.01), (0.2, 0), (1.0, 0.5)])
    values = {**VALUES["segment_sound"], "threshold_db": "-50", "min_s": "0.1"}
    assert run("segment_sound", workspace, values).returncode == 0
    assert [label for *_, label in segments(workspace / "foo.csv")] == ["sound", "silence", "sound"]
    assert run("segment_sound", workspace, {**values, "threshold_db": "-30"}).returncode == 0
    assert [label for *_, label in segments(workspace / "foo.csv")] == ["silence", "sound"]


def test_a_recording_may_have_any_name(workspace: Path) -> None:
    record(workspace / NASTY, [(1.0, 0.5)])
    done = run("segment_sound", workspace, {**VALUES["segment_sound"], "audio": NASTY})
    assert (done.returncode, done.stderr) == (0, "")
    assert segments(workspace / "foo.csv") == [(0.0, 1.0, "sound")]
    assert sorted(os.listdir(workspace)) == sorted([NASTY, "foo.csv", "foo.json"])


def test_an_empty_recording_has_no_segments(workspace: Path) -> None:
    record(workspace / "foo.wav", [])
    assert run("segment_sound", workspace, VALUES["segment_sound"]).returncode == 0
    assert (workspace / "foo.csv").read_text() == "start,end,label\n"


@pytest.mark.parametrize(
    "content",
    [b"", b"not a recording", b"RIFF\x24\x00\x00\x00WAVE", b"ID3\x04\x00" + bytes(1000)],
    ids=["empty", "text", "cut", "mp3"],
)
def test_what_is_no_wav_is_refused_with_the_reason(workspace: Path, content: bytes) -> None:
    (workspace / "foo.wav").write_bytes(content)
    done = run("segment_sound", workspace, VALUES["segment_sound"])
    assert done.returncode == 1
    assert done.stderr.startswith("segment_sound: 'foo.wav' is not a PCM WAV file: ")
    assert "Traceback" not in done.stderr
    assert os.listdir(workspace) == ["foo.wav"]


@pytest.mark.parametrize("minor", [6, 7, 8])
def test_a_segmentation_runs_under_the_pythons_of_old_clusters(
    workspace: Path, minor: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = [*Path("~/.pyenv/versions").expanduser().glob(f"3.{minor}.*/bin/python3")]
    python = shutil.which(f"python3.{minor}", path=os.pathsep.join(str(p.parent) for p in places))
    if python is None:
        pytest.skip(f"Python 3.{minor} is not installed")
    (workspace.parent / "python3").symlink_to(python)
    monkeypatch.setenv("PATH", f"{workspace.parent}:{os.environ['PATH']}")
    record(workspace / "foo.wav", [(1.0, 0), (1.0, 0.5)])
    done = run("segment_sound", workspace, VALUES["segment_sound"])
    assert (done.returncode, done.stderr) == (0, "")
    assert [label for *_, label in segments(workspace / "foo.csv")] == ["silence", "sound"]


@pytest.mark.parametrize("algorithm", [None, "sha256", "md5"])
def test_a_checksum_manifest_can_be_checked(workspace: Path, algorithm: str | None) -> None:
    content = array.array("H", range(1000)).tobytes()
    (workspace / NASTY).write_bytes(content)
    values = {**VALUES["checksum_manifest"], "file": NASTY}
    done = run(
        "checksum_manifest", workspace, {**values, "algorithm": algorithm} if algorithm else values
    )
    assert (done.returncode, done.stderr) == (0, "")
    manifest = (workspace / "foo.sha256").read_text()
    digest = hashlib.new(algorithm or "sha256", content).hexdigest()
    assert manifest == done.stdout == f"{digest}  {NASTY}\n"
    check = [f"{algorithm or 'sha256'}sum", "--check", "--quiet", "foo.sha256"]
    assert subprocess.run(check, cwd=workspace, check=False).returncode == 0


def test_an_algorithm_that_is_no_choice_is_refused(workspace: Path) -> None:
    values = {**VALUES["checksum_manifest"], "algorithm": "crc32"}
    with pytest.raises(TemplateError, match="algorithm"):
        render("checksum_manifest", workspace, values)


def test_the_sample_container_gets_the_arguments_of_its_template(workspace: Path) -> None:
    (workspace / "foo.mp3").touch()
    done = run("my_container", workspace, VALUES["my_container"])
    assert (done.returncode, done.stderr) == (0, "")
    assert calls(workspace) == [
        [
            *["run", "--nv", "--bind", f"{workspace}:/mnt", "/srv/containers/my_container.sif"],
            *["--level=6", "/mnt/foo.mp3", "/mnt/foo.txt", "/mnt/foo.json"],
        ]
    ]


@pytest.mark.parametrize("script", ["ina_speech_segmenter", "kaldi", "my_container"])
def test_a_container_template_calls_its_container_and_leaves_its_outputs(
    script: str, workspace: Path
) -> None:
    recording = "input" if script == "my_container" else "audio"
    values = {**VALUES[script], recording: NASTY}
    (workspace / NASTY).write_bytes(b"music")
    done = run(script, workspace, values)
    assert (done.returncode, done.stderr) == (0, "")
    expected = {value for name, value in values.items() if name != "level"}
    assert expected <= set(os.listdir(workspace))
    assert "pwned" not in os.listdir(workspace)
    (call,) = calls(workspace)
    assert call[:4] == ["run", "--nv", "--bind", f"{workspace}:/mnt"]
    assert call[4] == f"/srv/containers/{script}.sif"
