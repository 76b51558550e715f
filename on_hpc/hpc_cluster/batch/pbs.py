"""PBS Pro and OpenPBS: qsub, qstat, qdel.

A pilot's name is P in short form (`nonce`), because lists show 15 characters of it and nothing else
of ours. All pilots are listed in one call, by user: that never fails for an id that is gone. With
`-x` it shows what has ended too, but a server without job history refuses it, and old versions lack
`-w`; so the query falls back, at last to `qstat -f`, which lists everybody's jobs.

PBS has no warning signal; the script computes its end. PBS signals the shell that it starts, which
need not hand SIGTERM on: then a pilot that is deleted is found dead by its heartbeat.
"""

import re
from typing import Dict, List, Optional, Sequence, Tuple

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
    hours,
    nonce,
    script,
    unaided,
    whole_lines,
)

LIST = 'qstat -x -s -w -u "$0" 2>/dev/null || qstat -s -w -u "$0" 2>/dev/null || exec qstat -f'
"""For a shell whose $0 is the user."""

_STATE_OF = {
    **dict.fromkeys("QHWT", QUEUED),
    **dict.fromkeys("RESU", RUNNING),
    **dict.fromkeys("FCX", ENDED),
}
"""qstat(1B), job states of PBS Pro and Torque. M (moved to another server) and what is not here are
unknown."""

SIGNS = Signs(
    native_id=r"^([0-9]+(?:\.[A-Za-z0-9._-]+)?)\s*$",
    refused=r"^(?:qsub|pbs_iff): |^Unknown option: |^usage: ",
    lost=(
        "remature end",
        "End of File",
        "ommunication",
        "timed out",
        "Timeout",
        "timeout",
        "Broken pipe",
        "Connection reset",
        "rotocol",
    ),
    certain=("cannot connect to server", "Connection refused"),
)


class Pbs(Dialect):
    """The commands of PBS Pro and what they say."""

    def submit(self, request: Request) -> Command:
        """Return the qsub command, its script on standard input."""
        wishes = {key: value for key, value in request.options if value}
        argv = ["qsub", "-N", nonce.short_name(request.pilot), *quiet(request)]
        argv += ["-l", f"walltime={hours(request.walltime_s)}"]
        chunk = _chunk(wishes.get("memory"), wishes.get("gres"))
        if chunk:
            argv += ["-l", f"select=1:{chunk}"]
        if "qos" in wishes:
            argv += ["-l", f"qos={wishes['qos']}"]
        argv += account_and_queue(wishes)
        return Command(tuple(argv) + request.extra, script(request, *unaided(request)))

    def submitted(self, captured: Captured) -> Answer:
        """Return submitted, refused or unclear."""
        return acknowledgement("qsub", captured, SIGNS)

    def query(self, wanted: Sequence[Wanted]) -> Command:
        """Return the one command that lists this account's pilots."""
        return Command(("sh", "-c", LIST, account()))

    def listed(self, captured: Captured) -> Optional[Dict[str, PilotState]]:
        """Return the pilots by the nonce in their name; None for an answer to distrust."""
        lines = whole_lines(captured)
        if lines is None or "qstat: " in captured.stderr:
            return None
        if any(line.startswith("Job Id:") for line in lines):
            return _blocks(lines)
        return _table(lines)

    def cancel(self, native_id: str) -> Command:
        """Return the qdel command."""
        return Command(("qdel", native_id))


def quiet(request: Request) -> List[str]:
    """Return the arguments that all pilots of PBS and Torque have in common.

    The log is the script's own affair. `-v` with one variable also keeps Slurm's wrappers from
    sending the whole environment.
    """
    argv = ["-o", "/dev/null", "-j", "oe", "-r", "n", "-S", "/bin/bash"]
    return [*argv, "-v", f"HPC_BATCH_PILOT={request.pilot}"]


def account_and_queue(wishes: Dict[str, str]) -> List[str]:
    """Return the arguments for account, queue and mail; without them PBS mails about failures."""
    argv: List[str] = []
    for key, letter in (("account", "-A"), ("partition", "-q")):
        if key in wishes:
            argv += [letter, wishes[key]]
    return argv + (["-m", "a", "-M", wishes["email"]] if "email" in wishes else ["-m", "n"])


def _chunk(memory: Optional[str], gres: Optional[str]) -> str:
    """Return what one chunk needs, as in select=1:CHUNK."""
    parts = []
    if memory:
        parts.append(f"mem={memory}gb")
    if gres:
        count = gpus(gres)
        parts.append(gres if count is None else f"ngpus={count}")
    return ":".join(["ncpus=1", *parts]) if parts else ""


def _table(lines: Sequence[str]) -> Optional[Dict[str, PilotState]]:
    """Read a table, wide or not: the columns differ, but not the order of id, name and state.

    With -s a comment follows in an indented line.
    """
    found: Dict[str, PilotState] = {}
    last = None
    for line in lines:
        words = line.split()
        if line[:1].isspace() or not words:
            comment = line.strip()
            if last is not None and comment.strip("-"):
                found[last] = found[last]._replace(reason=comment)
            continue
        pilots = [nonce.from_short(word) for word in words]
        last = next((pilot for pilot in pilots if pilot), None)
        if last is None or not words[0][0].isdigit():
            last = None
            continue
        letters = [w for w in words[pilots.index(last) + 1 :] if re.match("[A-Z]$", w)]
        if not letters:
            return None
        state = _STATE_OF.get(letters[0], UNKNOWN)
        found[last] = PilotState(state, _whole_id(words[0]), letters[0])
    return found


def _whole_id(word: str) -> str:
    """Return an id that the table may have cut: the number alone names it as well."""
    return word.split(".")[0] if word.endswith("*") else word


def _blocks(lines: Sequence[str]) -> Optional[Dict[str, PilotState]]:
    """Read the long form: a block for each job, an indented line for each attribute."""
    found: Dict[str, PilotState] = {}
    for native_id, attributes in _split(lines):
        pilot = nonce.from_short(attributes.get("Job_Name", ""))
        if pilot is None:
            continue
        letter = attributes.get("job_state")
        if letter is None:
            return None
        code = attributes.get("exit_status", attributes.get("Exit_status"))
        reason = attributes.get("comment") or letter + (f" exit status {code}" if code else "")
        node = re.split("[/:*+]", attributes.get("exec_host", ""))[0] or None
        found[pilot] = PilotState(_STATE_OF.get(letter, UNKNOWN), native_id, reason, node)
    return found


def _split(lines: Sequence[str]) -> List[Tuple[str, Dict[str, str]]]:
    """Return the id and the attributes of each block; long values go on in the next line."""
    blocks: List[Tuple[str, Dict[str, str]]] = []
    key = ""
    for line in lines:
        head = re.match(r"Job Id:\s*(\S+)", line)
        pair = re.match(r"\s+([A-Za-z_][\w.]*) = (.*)", line)
        if head:
            blocks.append((head.group(1), {}))
            key = ""
        elif blocks and pair:
            key = pair.group(1)
            blocks[-1][1][key] = pair.group(2).strip()
        elif blocks and key and line[:1].isspace():
            blocks[-1][1][key] += line.strip()
    return blocks
