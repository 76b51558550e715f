"""Grid Engine (SGE, Univa, Son of Grid Engine): qsub, qstat, qdel.

A pilot's name carries P; the XML list shows names whole, where the plain table cuts them. What has
ended is in no list at once, and qacct knows it only later: absence is all there is, and the
heartbeat decides. A job in error (Eqw) never starts and never leaves: it is queued, with that as
its reason.

The soft limit of the run time brings SIGUSR1 as the warning; `-notify` brings SIGUSR2 before
SIGKILL when a pilot is deleted. The queue's own shell may be any, so `-S`.
"""

import re
import xml.etree.ElementTree
from typing import Dict, Optional, Sequence

from hpc_cluster.batch import (
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
)

SIGNS = Signs(
    native_id=r'^(?:Your job )?([0-9]+)(?: \("[^"]*"\) has been submitted)?\s*$',
    refused=r"^(?:Unable to run job|Unable to read|qsub: |error: |ERROR! )",
    lost=("imeout", "timed out", "time out", "read error", "receive", "Broken pipe", "got send"),
    certain=("Connection refused", "cell directory", "unable to resolve host"),
)

OPTIONS = {
    "account": ("-P", "{}"),
    "partition": ("-q", "{}"),
    "qos": ("-l", "qos={}"),
    "memory": ("-l", "mem_free={}G"),
}
"""What the operator asks for, in qsub's words."""


class Sge(Dialect):
    """The commands of Grid Engine and what they say."""

    def submit(self, request: Request) -> Command:
        """Return the qsub command, its script on standard input."""
        wishes = {key: value for key, value in request.options if value}
        soft = max(1, request.walltime_s - request.warning_s)
        argv = ["qsub", "-terse", "-N", nonce.long_name(request), "-S", "/bin/bash", "-r", "n"]
        argv += ["-o", "/dev/null", "-j", "y", "-notify"]
        argv += ["-l", f"h_rt={request.walltime_s},s_rt={soft}"]
        for key, (letter, form) in OPTIONS.items():
            if key in wishes:
                argv += [letter, form.format(wishes[key])]
        if "gres" in wishes:
            count = gpus(wishes["gres"])
            argv += ["-l", wishes["gres"] if count is None else f"gpu={count}"]
        argv += ["-m", "a", "-M", wishes["email"]] if "email" in wishes else ["-m", "n"]
        return Command(tuple(argv) + request.extra, script(request, *unaided(request)))

    def submitted(self, captured: Captured) -> Answer:
        """Return submitted, refused or unclear."""
        return acknowledgement("qsub", captured, SIGNS)

    def query(self, wanted: Sequence[Wanted]) -> Command:
        """Return the one command that lists this account's pilots."""
        return Command(("qstat", "-xml", "-u", account()))

    def listed(self, captured: Captured) -> Optional[Dict[str, PilotState]]:
        """Return the pilots by the nonce in their name; None for an answer to distrust."""
        if captured.timed_out or captured.rc != 0 or "error" in captured.stderr:
            return None
        root = _document(captured.stdout)
        if root is None:
            return None
        found: Dict[str, PilotState] = {}
        for job in root.iter("job_list"):
            pilot = nonce.from_long(job.findtext("JB_name") or "")
            if pilot is None:
                continue
            native_id, letters = job.findtext("JB_job_number"), job.findtext("state")
            if not native_id or not letters:
                return None
            queue = job.findtext("queue_name") or ""
            node = queue.rpartition("@")[2] or None
            found[pilot] = PilotState(_state(letters), native_id, letters, node)
        return found

    def cancel(self, native_id: str) -> Command:
        """Return the qdel command."""
        return Command(("qdel", native_id))


def _document(text: str) -> Optional[xml.etree.ElementTree.Element]:
    """Return the list; None when it is none, or cut. Banners around it are skipped."""
    match = re.search(r"<\?xml.*</job_info>", text, re.DOTALL)
    if match is None:
        return None
    # Names of other jobs may hold what XML does not allow.
    clean = re.sub("[\0-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]", "?", match.group())
    try:
        return xml.etree.ElementTree.fromstring(clean)
    except xml.etree.ElementTree.ParseError:
        return None


def _state(letters: str) -> str:
    """Return the state that qstat's letters stand for.

    Running, transferring, restarted, suspended in three ways; waiting, queued, held. E (error)
    and d (being deleted) come on top of one of them; what is being deleted counts as alive.
    """
    core = set(letters) - set("Ed")
    if not core <= set("rtRsSTwqh"):
        return UNKNOWN
    if core & set("qw"):
        return QUEUED
    return RUNNING if core & set("rtsST") else UNKNOWN
