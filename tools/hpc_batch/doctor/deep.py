"""The deep check: a real job, from a drop to its answer.

The job is dropped into the real dropbox and goes the way of every job: through passes (cron's or,
because nobody wants to wait for those, passes made here), a real pilot on a real node, and back.
The template `self_test` reads its input, tells about its node and writes its output. Afterwards the
answer and the files of the job are removed; when it takes too long, it is cancelled.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from hpc_batch import explanation, status, submitter
from hpc_batch.client import Dropbox, Job
from hpc_batch.config import Config
from hpc_batch.doctor.checks import Check, Subject, Verdict
from hpc_batch.errors import HpcBatchError
from hpc_cluster import files

TEMPLATE = "self_test"

BETWEEN_S = 1.0
LONGEST_BETWEEN_S = 10.0
"""Between two passes; a scheduler that is asked too often answers nobody."""

CANCELLED_S = 60.0
"""A cancelled job is waited for so long."""


def check_deep(subject: Subject) -> Verdict:
    """Run a job of one minute at most through everything."""
    config = subject.config
    subject.close()  # passes log in by themselves
    shipped = config.cronjob.templates / f"{TEMPLATE}.template"
    if not shipped.exists():
        return Verdict(
            "error",
            f"{config.cronjob.templates} has no template {TEMPLATE}",
            f"copy templates/{TEMPLATE}.template of hpc_batch there",
        )
    if _paused(config):
        return Verdict("error", "the service is paused", f"`hpc-batch -c {config.path} resume`")
    with contextlib.ExitStack() as stack:
        source, target = _places(config, stack)
        data = secrets.token_bytes(64 << 10)
        files.write_new(str(source), data)
        dropbox = Dropbox(config.cronjob.dropbox)
        name = f"hpc-batch-doctor-{secrets.token_hex(4)}"
        begun = time.monotonic()
        job = dropbox.submit(
            script=TEMPLATE, inputs={"data": source}, outputs={"report": target}, name=name
        )
        stack.callback(_tidy, job)
        subject.talk(f"deep: dropped {job.name}; waiting for its answer")
        if not _follow(subject, job, subject.timeout_s):
            why = _why(config, job)
            job.cancel()
            subject.talk("deep: it takes too long; cancelling it")
            gone = _follow(subject, job, CANCELLED_S)
            rest = "" if gone else f"; {job.name} is still in flight, and cancelled"
            return Verdict(
                "unknown",
                f"no answer within {subject.timeout_s:g} s: {why}{rest}",
                "a long wait in the queue is no fault: try again with a longer --timeout",
            )
        return _judged(job, target, data, time.monotonic() - begun)


def _judged(job: Job, target: Path, data: bytes, took_s: float) -> Verdict:
    node = (job.answer() or {}).get("job") or {}
    if node.get("status") != "ok":
        said = str(node.get("stderr") or "").strip().splitlines()
        detail = ": ".join([str(node.get("reason")), str(node.get("message")), *said[-1:]])
        return Verdict("error", f"the job failed: {detail}", "see `hpc-batch show last`")
    lines = target.read_text("utf-8", "replace").splitlines()
    report = dict(line.partition(": ")[::2] for line in lines)
    if hashlib.sha256(data).hexdigest() not in report.get("data", ""):
        return Verdict("error", "the job read something else than its input", "please report it")
    facts = [
        f"{key} {report[key]}"
        for key in ("node", "python", "containers", "gpu", "native id")
        if report.get(key)
    ]
    return Verdict("ok", f"answered in {took_s:.0f} s; {', '.join(facts)}")


def _follow(subject: Subject, job: Job, timeout_s: float) -> bool:
    """Make passes until the job is answered; tell each change. False when it took too long."""
    end, pause, told = time.monotonic() + timeout_s, BETWEEN_S, ""
    while True:
        code = submitter.run(subject.config, submitter.Options())
        if job.done():
            return True
        if code not in (0, 75):
            raise HpcBatchError(f"a pass ended with exit code {code}: see its message above")
        why = f"{job.state()}: {_why(subject.config, job)}"
        plain = why.split(" (")[0]
        if plain != told:
            subject.talk(f"deep: {why}")
            told = plain
        left = end - time.monotonic()
        if left <= 0:
            return False
        time.sleep(min(pause, left))
        pause = min(pause * 1.2, LONGEST_BETWEEN_S)


def _why(config: Config, job: Job) -> str:
    """Return why the job has no answer yet, in a sentence."""
    seen = status.read(config.cronjob.dropbox, config.cronjob.state)
    for one in seen.in_flight:
        if one.name == job.name:
            return explanation.explain(seen, one, config).why
    return "it is being taken or answered"


def _paused(config: Config) -> bool:
    try:
        paused = files.read_json(str(config.cronjob.state / "paused"))
    except FileNotFoundError:
        return False
    until = status.moment(paused.get("until"))
    return until is None or until.timestamp() > time.time()


def _places(config: Config, stack: contextlib.ExitStack) -> tuple[Path, Path]:
    """Return where input and output may lie: in folders of their own, removed at the end."""
    return (
        stack.enter_context(_folder(config.cronjob.input_roots)) / "data",
        stack.enter_context(_folder(config.cronjob.output_roots)) / "report",
    )


@contextlib.contextmanager
def _folder(roots: tuple[Path, ...]) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(
        prefix="hpc-batch-doctor-", dir=roots[0] if roots else None
    ) as name:
        yield Path(name)


def _tidy(job: Job) -> None:
    """Leave nothing in the dropbox; what has been taken and not answered is cancelled."""
    if job.done():
        files.unlink(str(job.answer_path))
    elif not files.unlink(str(job.path)):
        job.cancel()


DEEP = Check(
    "deep",
    check_deep,
    ("dropbox", "templates", "workspace", "scheduler"),
    connects=True,
)
