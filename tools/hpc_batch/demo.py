"""The demonstration: three jobs on this machine, end to end, by the code that serves a cluster.

It makes a recording with bursts like speech and silences between them, writes a configuration with
`transport = local` and `scheduler = local`, drops three jobs, and runs passes until all are
answered:

    segments   cuts the recording into sound and silence, as CSV and JSON
    checksums  writes a checksum manifest of it
    no_audio   is meant to fail: it gives the segmenter a text instead of a recording

Nothing leaves this machine, and no process stays: the pilot ends when nothing is left to do. It may
be repeated in the same folder; the recording is the same every time.
"""

from __future__ import annotations

import array
import math
import random
import sys
import time
import wave
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

from hpc_batch import config, submitter
from hpc_batch.client import Dropbox, Job
from hpc_batch.errors import HpcBatchError
from hpc_cluster import files
from hpc_cluster.batch import local

RATE_HZ = 16000
SEED = 1962
BETWEEN_PASSES_S = 0.5
REST_S = 15.0
"""A pilot that has nothing to do is waited for at most so long."""

INI = """\
# Everything runs on this machine; `hpc-batch config sample` prints what a cluster needs.
[remote]
transport = local
python = {python}

[hpc]
scheduler = local

[pilot]
linger = 0

[cronjob]
dropbox = {folder}/dropbox

[hpc_env]
workspace = {folder}/workspace
"""


@dataclass(frozen=True)
class Shown:
    """What came of one job."""

    job: str
    status: str
    reason: str
    seconds: float
    """From the drop to the answer."""
    message: str
    """The answer's, and of a failure the last line of the script's error output."""
    answer: Path
    outputs: tuple[Path, ...]
    as_meant: bool
    """The job that is meant to fail failed, the others did not."""

    def document(self) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        paths = {"answer": str(self.answer), "outputs": [str(path) for path in self.outputs]}
        return {**vars(self), **paths}


def demo(folder: Path, timeout_s: float, talk: Callable[[str], None]) -> list[Shown]:
    """Run the three jobs in `folder` and return what came of them.

    `talk` gets a line when something begins. Raises TimeoutError when they are not answered in
    time, and HpcBatchError where a pass cannot work.
    """
    chosen = config.load(_prepare(folder))
    dropbox = Dropbox(chosen.cronjob.dropbox)
    jobs = _drop(folder, dropbox)
    begun = time.monotonic()
    talk(f"dropped {', '.join(job.name for job in jobs)} into {dropbox.path}")
    answered: dict[str, float] = {}
    number = 0
    while len(answered) < len(jobs):
        if time.monotonic() >= begun + timeout_s:
            waiting = ", ".join(job.name for job in jobs if job.name not in answered)
            raise TimeoutError(f"not answered within {timeout_s:g} s: {waiting}")
        if number:
            time.sleep(BETWEEN_PASSES_S)
        number += 1
        code = submitter.run(chosen, submitter.Options())
        if code not in (0, 75):
            raise HpcBatchError(f"pass {number} ended with {code}")
        for job in jobs:
            if job.done():
                answered.setdefault(job.name, round(time.monotonic() - begun, 1))
        states = [f"{job.name[: -len('.job')]} {job.state()}" for job in jobs]
        talk(f"pass {number}: {', '.join(states)}")
    _await_pilots(Path(chosen.env["workspace"]))
    return [_shown(job, answered[job.name]) for job in jobs]


def _await_pilots(workspace: Path) -> None:
    """Wait until no pilot is left; with `linger = 0` each ends by itself at once."""
    end = time.monotonic() + REST_S
    while time.monotonic() < end and any(map(_is_alive, workspace.glob("pilots/*/pilot.json"))):
        time.sleep(0.05)


def _is_alive(path: Path) -> bool:
    try:
        known = files.read_json(str(path)).get("native_id")
    except (OSError, ValueError):
        return False  # RACE: a pass has removed the folder of a pilot that ended.
    return isinstance(known, str) and local.native_id(int(known.split(".")[0])) == known


def record(path: Path, seconds: float = 12.0) -> None:
    """Write a mono WAV file: bursts of a second or two, like speech, with silences between them."""
    chance = random.Random(SEED)
    samples = array.array("h", bytes(2 * int(seconds * RATE_HZ)))
    at = 0.8
    while at < seconds - 1.5:
        length = min(chance.uniform(0.7, 2.0), seconds - 0.5 - at)
        _speak(samples, at, length, chance)
        at += length + chance.uniform(0.6, 1.3)
    if sys.byteorder == "big":
        samples.byteswap()
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE_HZ)
        file.writeframes(samples.tobytes())


def _speak(samples: array.array[int], at: float, length: float, chance: random.Random) -> None:
    """Add a burst: a voice's pitch that wanders, its harmonics, syllables four times a second."""
    first, count = int(at * RATE_HZ), int(length * RATE_HZ)
    pitch, syllable = chance.uniform(100, 220), chance.uniform(3.5, 5.0)
    phase = 0.0
    for i in range(count):
        seconds = i / RATE_HZ
        phase += 2 * math.pi * pitch * (1 + 0.1 * math.sin(5 * seconds)) / RATE_HZ
        edge = min(1.0, i / 800, (count - i) / 800)
        loud = edge * (0.55 + 0.45 * math.sin(2 * math.pi * syllable * seconds))
        voice = math.sin(phase) + 0.5 * math.sin(2 * phase) + 0.25 * math.sin(3 * phase)
        samples[first + i] = int(9000 * loud * voice + chance.gauss(0, 60))


def _prepare(folder: Path) -> Path:
    """Make the folders, the inputs and the configuration; return the configuration's path."""
    for path in (folder, folder / "dropbox", folder / "media", folder / "results"):
        path.mkdir(parents=True, exist_ok=True)
    record(folder / "media" / "interview.wav")
    files.write_new(str(folder / "media" / "notes.txt"), b"This is a text, not a recording.\n")
    ini = folder / "hpc_batch.ini"
    files.write_new(str(ini), INI.format(folder=folder, python=sys.executable).encode())
    return ini


def _drop(folder: Path, dropbox: Dropbox) -> list[Job]:
    """Drop the jobs, each under the name that it has every time; old answers make room."""
    media, results = folder / "media", folder / "results"
    recording = media / "interview.wav"
    jobs = []
    for name, script, inputs, outputs in (
        (
            "segments",
            "segment_sound",
            {"audio": recording},
            {
                "csv_output": results / "interview.csv",
                "json_output": results / "interview.json",
            },
        ),
        (
            "checksums",
            "checksum_manifest",
            {"file": recording},
            {"manifest": results / "interview.wav.sha256"},
        ),
        (
            "no_audio",
            "segment_sound",
            {"audio": media / "notes.txt"},
            {"csv_output": results / "notes.csv", "json_output": results / "notes.json"},
        ),
    ):
        files.unlink(str(dropbox.job(name).answer_path))
        try:
            jobs.append(dropbox.submit(script=script, inputs=inputs, outputs=outputs, name=name))
        except FileExistsError:
            # An earlier run was ended before its first pass; its drop says the same.
            jobs.append(dropbox.job(name))
    return jobs


def _shown(job: Job, seconds: float) -> Shown:
    answer = job.answer() or {}
    node = answer.get("job") or {}
    placed = [Path(path) for path in (answer.get("output_map") or {}).values()]
    meant = "error" if job.name == "no_audio.job" else "ok"
    said = str(node.get("stderr") or "").strip().splitlines()
    failed = node.get("status") != "ok"
    return Shown(
        job=job.name[: -len(".job")],
        status=str(node.get("status")),
        reason=str(node.get("reason")),
        seconds=seconds,
        message=": ".join([str(node.get("message")), *(said[-1:] if failed else [])]),
        answer=job.answer_path,
        outputs=tuple(path for path in placed if path.exists()),
        as_meant=node.get("status") == meant,
    )
