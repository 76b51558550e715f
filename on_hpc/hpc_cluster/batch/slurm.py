"""Slurm: sbatch, squeue, scancel.

Pilots are found by the name of their slot and told apart by their comment, which is P. Names never
make squeue fail, while one purged id does. What squeue does not list may have been purged from its
memory (MinJobAge), so absence alone is no end: `queuer` asks the heartbeat as well.

The runner replaces the batch script (`exec`), so that the warning signal reaches it; a script that
runs it as a child would be killed by it.
"""

import os
import re
from typing import Dict, Optional, Sequence

from hpc_cluster.batch import (
    ENDED,
    QUEUED,
    RUNNING,
    UNKNOWN,
    Answer,
    Captured,
    Command,
    Dialect,
    PilotState,
    Request,
    Signs,
    Wanted,
    acknowledgement,
    knows_its_end,
    script,
)

FORMAT = "%i|%T|%S|%e|%r|%k"
"""Id, state, start, end, reason, comment. The comment comes last because it may hold anything."""

STATES = {
    QUEUED: "PENDING CONFIGURING REQUEUED REQUEUE_HOLD REQUEUE_FED RESV_DEL_HOLD SPECIAL_EXIT",
    RUNNING: "RUNNING COMPLETING SUSPENDED STOPPED RESIZING SIGNALING STAGE_OUT EXPEDITING",
    ENDED: "BOOT_FAIL CANCELLED COMPLETED DEADLINE FAILED NODE_FAIL OUT_OF_MEMORY PREEMPTED "
    "REVOKED TIMEOUT",
}
"""squeue(1), job state codes. What is not here is unknown."""

_STATE_OF = {word: state for state, words in STATES.items() for word in words.split()}

OPTIONS = {
    "account": "--account={}",
    "qos": "--qos={}",
    "partition": "--partition={}",
    "gres": "--gres={}",
    "memory": "--mem={}G",
    "email": "--mail-type=FAIL --mail-user={}",
}
"""What the operator asks for, in sbatch's words."""

CERTAIN = "(connect failure)"
"""sbatch could not even connect: surely not submitted."""

LOST = (
    "timed out",
    "Unable to contact slurm controller",
    "Connection reset",
    "Connection refused",
    "Zero Bytes were transmitted",
    "Unexpected message",
    "Transport endpoint",
    "Broken pipe",
    "send/recv",
    "ommunication",
    "Socket",
)
"""The answer was lost on its way: the pilot may be in the queue (sbatch, measured: a controller
that stands still takes the submission after sbatch gave up)."""


SIGNS = Signs(
    native_id=r"^([0-9]+)(?:;\S*)?\s*$",  # with several clusters the cluster's name follows
    refused=r"^sbatch: (?:error|fatal|unrecognized|invalid)",
    lost=LOST,
    certain=(CERTAIN,),
)


class Slurm(Dialect):
    """Slurm's commands and what they say."""

    def submit(self, request: Request) -> Command:
        """Return the sbatch command, its script on standard input."""
        minutes = max(1, -(-request.walltime_s // 60))
        # In a file name for sbatch a percent sign begins a pattern; doubled it is itself.
        log = request.log.replace("%", "%%")
        argv = [
            "sbatch",
            "--parsable",
            f"--job-name={request.name}",
            f"--comment={request.pilot}",
            "--export=NONE",
            "--no-requeue",
            f"--signal=B:USR1@{request.warning_s}",
            "--open-mode=append",
            f"--output={log}",
            f"--chdir={request.workspace}",
            f"--time={minutes}",
        ]
        for key, value in request.options:
            if value and key in OPTIONS:
                argv += [word.format(value) for word in OPTIONS[key].split(" ")]
        # Before 23.02 Slurm does not tell the end.
        return Command(tuple(argv) + request.extra, script(request, knows_its_end(request)))

    def submitted(self, captured: Captured) -> Answer:
        """Return submitted, refused or unclear."""
        return acknowledgement("sbatch", captured, SIGNS)

    def query(self, wanted: Sequence[Wanted]) -> Command:
        """Return the one squeue command for all slots."""
        return Command(
            (
                "squeue",
                "--noheader",
                "--array",
                "--states=all",
                f"--user={os.geteuid()}",
                "--name=" + ",".join(sorted({w.name for w in wanted})),
                "--format=" + FORMAT,
            )
        )

    def listed(self, captured: Captured) -> Optional[Dict[str, PilotState]]:
        """Return the pilots by the nonce in their comment; None for an answer to distrust."""
        if captured.timed_out or captured.rc != 0 or "error" in captured.stderr:
            return None
        if captured.stdout and not captured.stdout.endswith("\n"):
            return None
        found: Dict[str, PilotState] = {}
        for line in captured.stdout.splitlines():
            if not re.match("[0-9]", line):
                continue  # a banner
            fields = line.split("|", 5)
            if len(fields) < 6:
                return None
            native_id, word, _, _, reason, comment = fields
            nonce = re.match("[0-9a-f]{16}(?![0-9a-zA-Z])", comment)
            if nonce is None:
                continue  # not ours, whatever its name
            state = _STATE_OF.get((word.split() or [""])[0], UNKNOWN)
            detail = reason if state == QUEUED else f"{word} {reason}"
            now = PilotState(state, native_id, detail if reason != "None" else word)
            before = found.get(nonce.group())
            # A requeued one is listed twice; the one that has not ended is what counts.
            if before is None or before.state == ENDED:
                found[nonce.group()] = now
        return found

    def cancel(self, native_id: str) -> Command:
        """Return the scancel command; it succeeds for what has ended, too."""
        return Command(("scancel", "--quiet", native_id))
