"""Flux: flux submit, flux jobs, flux cancel.

A pilot is a plain job of one task, not an instance of its own (`flux batch`), so that the warning
signal reaches the runner; a login shell gets the whole script as an argument. Its name carries P.
Flux prints ids in base 58 behind a letter that not every locale can write; here they are decimal
numbers, which all its commands accept.

An inactive job has ended, whatever its result. There is no account's mail and no request for memory
in Flux; `qos` becomes a job attribute, for sites whose plugins know it.
"""

import re
from typing import Dict, Optional, Sequence

from hpc_cluster import files
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
    Submitted,
    Wanted,
    acknowledgement,
    gpus,
    nonce,
    script,
    unaided,
    whole_lines,
)

ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
"""Base 58 of Flux RFC 19."""

FORMAT = (
    "{id.dec}|{state}|{result}|{returncode}|{nodelist}|{annotations.sched.reason_pending}|{name}"
)
"""The name comes last; it is found from the end, whatever the fields before it hold."""

COUNT = 100_000
"""Far above the 1000 jobs that flux jobs lists by default."""

STATES = {
    QUEUED: "NEW DEPEND PRIORITY SCHED",
    RUNNING: "RUN CLEANUP",
    ENDED: "INACTIVE",
}
"""Flux RFC 21. What is not here is unknown."""

_STATE_OF = {word: state for state, words in STATES.items() for word in words.split()}

SIGNS = Signs(
    native_id=rf"^((?:\u0192|\ufffd+)[{ALPHABET}]+|f[{ALPHABET}]{{5,}}|[0-9]{{5,}})\s*$",
    refused=r"^(?:flux-submit|flux submit|flux): |^usage: ",
    lost=("timed out", "imeout", "Connection reset", "Broken pipe", "No route", "not implemented"),
    certain=("Unable to connect to Flux", "Connection refused"),
)

OPTIONS = {
    "account": "--bank={}",
    "partition": "--queue={}",
    "qos": "--setattr=system.qos={}",
}
"""What the operator asks for, in flux submit's words."""


class Flux(Dialect):
    """The commands of Flux and what they say."""

    def submit(self, request: Request) -> Command:
        """Return the flux command; its arguments hold the script."""
        wishes = {key: value for key, value in request.options if value}
        argv = ["flux", "submit", "--ntasks=1", f"--job-name={nonce.long_name(request)}"]
        argv += [f"--time-limit={request.walltime_s}s", f"--signal=USR1@{request.warning_s}s"]
        argv += ["--output=/dev/null", "--error=/dev/null", f"--cwd={request.workspace}"]
        argv += ["--env=-*", *(f"--env={name}" for name in ("HOME", "USER", "LOGNAME", "PATH"))]
        argv += [form.format(wishes[key]) for key, form in OPTIONS.items() if key in wishes]
        if "gres" in wishes:
            count = gpus(wishes["gres"])
            argv.append(f"--requires={wishes['gres']}" if count is None else f"-g{count}")
        text = files.from_bytes(script(request, *unaided(request)))
        return Command((*argv, *request.extra, "/bin/bash", "-lc", text))

    def submitted(self, captured: Captured) -> Answer:
        """Return submitted, refused or unclear; the id in decimal."""
        answer = acknowledgement("flux submit", captured, SIGNS)
        if isinstance(answer, Submitted):
            return Submitted(decimal(answer.native_id) or answer.native_id)
        return answer

    def query(self, wanted: Sequence[Wanted]) -> Command:
        """Return the one command that lists this account's pilots."""
        return Command(("flux", "jobs", "-a", "-n", f"--count={COUNT}", f"--format={FORMAT}"))

    def listed(self, captured: Captured) -> Optional[Dict[str, PilotState]]:
        """Return the pilots by the nonce in their name; None for an answer to distrust."""
        lines = whole_lines(captured)
        if lines is None or "ERROR" in captured.stderr:
            return None
        found: Dict[str, PilotState] = {}
        for line in lines:
            if not re.match(r"[0-9]+\|", line):
                continue  # a banner
            fields = [field.strip() for field in line.split("|")]
            if len(fields) < 7:
                return None
            pilot = nonce.from_long(fields[-1])
            if pilot is None:
                continue
            native_id, word, result, code, nodes = fields[:5]
            state = _STATE_OF.get(word, UNKNOWN)
            reason = " ".join(filter(None, [result, f"exit code {code}" if code else ""]))
            reason = (state == QUEUED and "|".join(fields[5:-1])) or reason or word
            found[pilot] = PilotState(state, native_id, reason, nodes or None)
        return found

    def cancel(self, native_id: str) -> Command:
        """Return the command that cancels; older versions have another."""
        cancel = 'flux cancel "$0" || exec flux job cancel "$0"'
        return Command(("sh", "-c", cancel, native_id))


def decimal(text: str) -> Optional[str]:
    """Return an id of Flux in decimal; None for what is none."""
    if text.isdigit():
        return text
    digits = re.match(rf"(?:f|[^\x00-\x7f]+)([{ALPHABET}]+)\Z", text)
    if digits is None:
        return None
    number = 0
    for digit in digits.group(1):
        number = number * len(ALPHABET) + ALPHABET.index(digit)
    return str(number)
