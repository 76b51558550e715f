"""LSF 10.1 or later: bsub, bjobs, bkill.

A pilot's name carries P. bjobs answers with 255 for everything that it dislikes, an empty list
included: there its words decide. It forgets what ended an hour ago or so (CLEAN_PERIOD), so absence
alone is no end. UNKWN (its node does not answer) and ZOMBI are unknown, not ended.

bsub sends the whole environment unless it is told not to; the login shell makes a new one. The
warning signal is sent in full minutes before the end. At the run limit LSF sends SIGUSR2, and bkill
SIGINT and SIGTERM before SIGKILL.
"""

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
    account,
    acknowledgement,
    gpus,
    nonce,
    script,
    unaided,
    whole_lines,
)

FORMAT = "jobid stat exit_code exec_host pend_reason job_name delimiter='^'"
"""The name comes last; it is found from the end, whatever the fields before it hold."""

NOTHING = re.compile(r"(?m)^(?:No (?:unfinished |matching )?job found|Job <[^>]*> is not found)")

STATES = {
    QUEUED: "PEND PROV PSUSP WAIT FWD_PEND",
    RUNNING: "RUN USUSP SSUSP",
    ENDED: "DONE EXIT",
}
"""bjobs(1). What is not here is unknown."""

_STATE_OF = {word: state for state, words in STATES.items() for word in words.split()}

SIGNS = Signs(
    native_id=r"^Job <([0-9]+)> is submitted",
    refused=r"Job not submitted|^bsub: ",
    lost=("ime out", "imed out", "imeout", "ommunication", "Connection reset", "lost", "XDR"),
    certain=("Connection refused",),
)


class Lsf(Dialect):
    """The commands of LSF and what they say."""

    def submit(self, request: Request) -> Command:
        """Return the bsub command, its script on standard input."""
        wishes = {key: value for key, value in request.options if value}
        argv = ["bsub", "-J", nonce.long_name(request), "-o", "/dev/null", "-rn"]
        argv += ["-env", "none", "-L", "/bin/bash"]
        argv += ["-W", str(max(1, -(-request.walltime_s // 60)))]
        argv += ["-wt", str(-(-request.warning_s // 60)), "-wa", "USR1"]
        for key, letter in (("account", "-P"), ("partition", "-q"), ("qos", "-sla")):
            if key in wishes:
                argv += [letter, wishes[key]]
        if "gres" in wishes:
            count = gpus(wishes["gres"])
            argv += ["-gpu", wishes["gres"] if count is None else f"num={count}"]
        if "memory" in wishes:
            size = wishes["memory"] + "GB"
            argv += ["-M", size, "-R", f"rusage[mem={size}]"]
        if "email" in wishes:
            argv += ["-Ne", "-u", wishes["email"]]
        return Command(tuple(argv) + request.extra, script(request, *unaided(request)))

    def submitted(self, captured: Captured) -> Answer:
        """Return submitted, refused or unclear."""
        return acknowledgement("bsub", captured, SIGNS)

    def query(self, wanted: Sequence[Wanted]) -> Command:
        """Return the one command that lists this account's pilots."""
        return Command(("bjobs", "-a", "-u", account(), "-noheader", "-o", FORMAT))

    def listed(self, captured: Captured) -> Optional[Dict[str, PilotState]]:
        """Return the pilots by the nonce in their name; None for an answer to distrust."""
        nothing = NOTHING.search(captured.stderr + captured.stdout)
        if nothing and captured.rc in (0, 255) and not captured.timed_out:
            return {}
        lines = whole_lines(captured)
        if not lines:
            return None  # an empty list is told in words
        found: Dict[str, PilotState] = {}
        for line in lines:
            if not re.match(r"[0-9]+\^", line):
                continue  # a banner
            fields = line.split("^")
            if len(fields) < 6:
                return None
            pilot = nonce.from_long(fields[-1].strip())
            if pilot is not None:
                found[pilot] = _pilot_state(fields)
        return found

    def cancel(self, native_id: str) -> Command:
        """Return the bkill command."""
        return Command(("bkill", native_id))


def _pilot_state(fields: Sequence[str]) -> PilotState:
    native_id, word, code, host = (field.strip() for field in fields[:4])
    state = _STATE_OF.get(word, UNKNOWN)
    reason = word
    if state == QUEUED:
        reason = _told("^".join(fields[4:-1])) or word
    elif _told(code):
        reason = f"{word} exit code {code}"
    return PilotState(state, native_id, reason, _told(host))


def _told(text: str) -> Optional[str]:
    """Return what a field says; None for the dash that says nothing."""
    return text.strip() if text.strip(" -") else None
