"""Explanation: the first reason why a job has no answer yet, what shows it, and what to do.

Everything is read from files on this side: the drop itself, and what the last pass wrote down
(`status`, the job's description). So it costs the cluster nothing, and is as old as the last pass.
The reasons stand in the order in which they block: whoever mends the first one may see the next.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from hpc_batch import settling
from hpc_batch.amounts import amount, span
from hpc_batch.config import Config
from hpc_batch.journal import Damaged, Journal
from hpc_batch.listing import look, unanswerable
from hpc_batch.reasons import NEXT, is_obstacle, meaning
from hpc_batch.status import STALE, Seen, Status, moment, next_try
from hpc_cluster import files

NOTHING = "nothing: it goes on by itself"

HERE = ("PLACING", "UNPLACING", "ANSWERING")
"""Phases whose step needs this host only."""

MEND = {
    "stage_in": "make room, or its inputs readable, as the message says",
    "stage_out": "make room, or the destination writable, as the message says",
    "rejected": "raise [hpc] walltime again",
    "damaged": "bring the file back, or `hpc-batch resume --restored`",
    "lost": "see who removes files from the workspace",
}
"""What to do about a job that is stuck, by the reason it would be answered with."""

MEND_ANSWER = "make room in the dropbox, or it writable, as the message says"


@dataclass(frozen=True)
class Explanation:
    """Why a job stands where it stands."""

    name: str
    state: str
    why: str
    """The first blocking reason, one sentence."""
    evidence: tuple[str, ...]
    """What shows it, a sentence each."""
    next: str
    """What to do."""


def explain(seen: Status, job: Seen, config: Config | None) -> Explanation:
    """Return why a job has no answer yet, or what its answer means."""
    return _Case(seen, job, config).explained()


class _Case:
    """One job and all that is known about what it may wait for."""

    def __init__(self, seen: Status, job: Seen, config: Config | None) -> None:
        self.seen, self.job, self.config = seen, job, config
        self.service: Mapping[str, Any] = seen.service or {}
        self.now = datetime.now(timezone.utc)
        self.evidence: list[str] = []
        if job.since:
            self.evidence.append(f"{job.state} since {job.since} ({self._ago(job.since)})")

    def explained(self) -> Explanation:
        """Go through the reasons in their order."""
        if self.job.answered:
            return self._answered()
        for reason in (
            self._unusual_drop,
            self._unseen,
            self._failed,
            self._no_pass,
            self._paused,
            self._stuck_here,
            self._unreachable,
            self._stuck,
        ):
            found = reason()
            if found is not None:
                return found
        return {
            "waiting": self._waiting,
            "staged": self._staged,
            "running": self._running,
            "returning": self._returning,
        }.get(self.job.state, self._staging)()

    # ---- reasons that hold for several states ----------------------------------------------------

    def _answered(self) -> Explanation:
        if self.job.state == "ok":
            return self._say("it is done", "nothing: its outputs are in place")
        why = f"it is answered with an error, {self.job.reason}: {self.job.message}"
        name = self.job.name.removesuffix(".job")
        if self.job.node:
            self.evidence.append(f"its last attempt ran on {self.job.node}")
        return self._say(why, NEXT.get(self.job.reason or "", "").format(name=name))

    def _unseen(self) -> Explanation | None:
        """Who sees the dropbox only does not see what the job waits for."""
        if self.service or (self.config is not None and not self.seen.hidden):
            return None
        self.evidence.append(
            f"{self.seen.hidden or 'no configuration is known'}: only what the dropbox shows"
        )
        why = {
            "waiting": "no pass has taken it yet",
            "staged": "it waits for a pilot",
            "running": "it is running",
            "returning": "it has ended, and its outputs are on their way back",
        }.get(self.job.state, "its inputs are on their way to the cluster")
        return self._say(why, "if it takes too long, ask the operator, who sees more")

    def _failed(self) -> Explanation | None:
        failed = self.seen.failed
        if failed is None:
            return None
        since, text = failed.get("since"), str(failed.get("message")).replace("\n", "; ")
        self.evidence.append(f"the last one ended with exit code {failed.get('code')}")
        return self._say(
            f"no pass has worked since {since} ({self._ago(since)}): {text}",
            "mend what the message names; every pass tries again, and all jobs are safe",
        )

    def _no_pass(self) -> Explanation | None:
        age = self.seen.age(self.now)
        if age is None:
            why = "no pass has run yet"
        elif age > STALE:
            why = f"no pass has run for {span(age.total_seconds())}"
        else:
            return None
        return self._say(why, "`hpc-batch cron show`: is there a line? `hpc-batch pass` runs one")

    def _unusual_drop(self) -> Explanation | None:
        """A drop that no pass will ever take; or another job of its name is before it."""
        if self.job.state != "waiting":
            return None
        for drop in look(self.seen.dropbox).drops:
            mine = files.from_bytes(os.fsencode(drop.name)) == self.job.name
            why = unanswerable(drop) if mine else None
            if why is not None:
                return self._say(f"it {why}", "drop it again, as a plain file of its own")
        for other in self.seen.in_flight:
            if other.name == self.job.name and other.state != "waiting":
                return self._say(
                    f"another job of the same name is in flight ({other.state}), and comes first",
                    "wait for its answer, or give this one another name",
                )
        return None

    def _paused(self) -> Explanation | None:
        paused = self.service.get("paused")
        if not paused or self.job.state not in ("waiting", "accepted", "staging"):
            return None
        until = f" until {paused['until']}" if paused.get("until") else ""
        reason = f": {paused['reason']}" if paused.get("reason") else ""
        self.evidence.append(f"paused since {paused.get('since')}")
        return self._say(f"the service is paused{until}{reason}", "`hpc-batch resume` ends it")

    def _unreachable(self) -> Explanation | None:
        cluster = self.service.get("cluster") or {}
        if self.job.state == "waiting" or cluster.get("reachable") is not False:
            return None
        self.evidence.append(f"the last pass said: {cluster.get('trouble')}")
        since = cluster.get("since")
        return self._say(
            f"the cluster cannot be used since {since} ({self._ago(since)})",
            "`hpc-batch doctor` finds where it ends; the job is safe, passes try again",
        )

    def _stuck_here(self) -> Explanation | None:
        """What it is stuck on that has nothing to do with the cluster."""
        damaged = self.job.stuck is not None and self.job.stuck.get("reason") == "damaged"
        return self._stuck() if damaged or self._record().get("phase") in HERE else None

    def _stuck(self) -> Explanation | None:
        stuck = self.job.stuck
        if stuck is None:
            return None
        self.evidence.append(f"stuck since {stuck['since']} ({self._ago(stuck['since'])})")
        mend = MEND.get(str(stuck.get("reason")), MEND_ANSWER)
        return self._say(str(stuck["why"]), f"{mend}; {stuck['next']}")

    # ---- the states ------------------------------------------------------------------------------

    def _waiting(self) -> Explanation:
        path = self.seen.dropbox / os.fsdecode(files.to_bytes(self.job.name))
        stuck = self._troubles("taking", "accept ", "check ")
        if stuck:
            return self._say(f"it cannot be taken: {stuck[0]}", "make room; every pass tries again")
        left, why = 0.0, ""
        with contextlib.suppress(OSError):  # RACE: taken meanwhile; then nothing is left to wait.
            assert self.config is not None  # else `_unseen` has answered
            left, why = settling.wait_of(settling.look(str(path)), time.time(), self.config)
        if left <= 0:
            return self._say("it has settled; the next pass takes it", NOTHING)
        return self._say(
            f"it has not settled: {why}",
            f"{NOTHING}, in at most {span(left)}; end a job file with a line `...`, "
            "or rename it into place, and it is taken at once",
        )

    def _staging(self) -> Explanation:
        inputs = [i for i in self._record().get("inputs", ()) if isinstance(i, Mapping)]
        size = sum(int(i["stamp"][0]) for i in inputs)
        if inputs:
            self.evidence.append(f"{len(inputs)} inputs, {amount(size)}")
        stuck = self._troubles("stuck stage_in", "stage ", "check ", "publish ")
        message = self.job.message or self._record().get("message")
        if message or stuck:
            self.evidence += stuck
            return self._say(
                f"its inputs do not get to the cluster: {message or stuck[0]}",
                "see the message; every pass tries again, for two days",
            )
        return self._say("its inputs are on their way to the cluster", NOTHING)

    def _staged(self) -> Explanation:
        before = [
            other
            for other in self.seen.in_flight
            if other.state == "staged" and (other.since or "") < (self.job.since or "")
        ]
        if before:
            self.evidence.append(f"{len(before)} jobs of this dropbox are before it")
        pilots = [p for p in self.service.get("pilots", ()) if p.get("state") != "ended"]
        troubles = self._troubles("pilots", "batch system")
        running = [p for p in pilots if p.get("started") or p.get("state") == "running"]
        if running:
            return self._behind(running)
        queued = [p for p in pilots if p.get("state") in ("queued", "submitted", "unknown")]
        if queued:
            self.evidence += troubles
            free = [p for p in queued if not is_obstacle(p.get("reason"))]
            return self._queued((free or queued)[0])
        if troubles:
            return self._say(
                f"no pilot can be had: {troubles[0]}",
                "mend what the message names; the next one is submitted by itself, "
                "or at once by `hpc-batch pilot submit`",
            )
        if self.service.get("paused"):
            return self._say("the service is paused, and no pilot is there", "`hpc-batch resume`")
        return self._say("no pilot is there yet; the next pass submits one", NOTHING)

    def _queued(self, pilot: Mapping[str, Any]) -> Explanation:
        name, since = _pilot(pilot), pilot.get("submitted") or pilot.get("since")
        when = f"{since} ({self._ago(since)})"
        self.evidence.append("jobs that are dropped meanwhile share this wait")
        if pilot.get("state") == "queued":
            reason = pilot.get("reason")
            means = f" ({meaning(reason)})" if meaning(reason) else ""
            why = f"the pilot {name} has been queued since {when}"
            mend = (
                "mend what keeps it; `hpc-batch pilot cancel` if it was asked for wrongly, and the "
                "next pass submits another"
            )
            step = mend if is_obstacle(reason) else NOTHING
            return self._say(f"{why}; the scheduler says {reason}{means}", step)
        if pilot.get("state") == "unknown":
            return self._say(
                f"the scheduler does not say what the pilot {name} does, submitted {when}", NOTHING
            )
        return self._say(f"the pilot {name} was submitted {when}", NOTHING)

    def _behind(self, running: Sequence[Mapping[str, Any]]) -> Explanation:
        """A pilot runs: it has not come to this job, or has not the time for it."""
        need = self._need_s()
        ends = [p.get("end_of_walltime") for p in running]
        left = [float(end) - time.time() for end in ends if isinstance(end, (int, float))]
        for pilot in running:
            busy = len(pilot.get("running") or ())
            self.evidence.append(
                f"the pilot {_pilot(pilot)} has been running on {pilot.get('node')} since "
                f"{pilot.get('started') or pilot.get('since')}, with {busy} jobs at the last pass"
            )
        if need and len(left) == len(running) and max(left) < need:
            return self._say(
                f"its time limit, {span(need)} with grace, does not fit into what is left of the "
                f"pilot's walltime, {span(max(0, max(left)))}",
                "nothing: the next pilot takes it; or a smaller --time-limit in its template",
            )
        return self._say("a pilot is running and has not come to it yet", NOTHING)

    def _running(self) -> Explanation:
        where = f" on {self.job.node}" if self.job.node else ""
        since = self.job.since
        if self.job.attempts and self.job.attempts > 1:
            self.evidence.append(f"this is attempt {self.job.attempts}")
        limit = self._description().get("time_limit")
        if limit:
            self.evidence.append(f"its time limit is {span(float(limit))}")
        return self._say(
            f"it has been running{where} since {since} ({self._ago(since)})",
            f"nothing; `hpc-batch logs -f {self.job.name.removesuffix('.job')}` shows what it says",
        )

    def _returning(self) -> Explanation:
        message = self.job.message or self._record().get("message")
        troubles = self._troubles("stuck stage_out", "stuck None", "answer ", "place ", "collect ")
        if message or troubles:
            self.evidence += troubles
            return self._say(
                f"it has ended, and its outputs cannot be brought back: {message or troubles[0]}",
                "make room, or the destination writable; every pass tries again, for two days",
            )
        return self._say("it has ended, and its outputs are on their way back", NOTHING)

    # ---- parts -----------------------------------------------------------------------------------

    def _say(self, why: str, next_step: str) -> Explanation:
        if self.job.cancel:
            self.evidence.append("somebody asked for its cancellation; the next pass acts on it")
        return Explanation(self.job.name, self.job.state, why, tuple(self.evidence), next_step)

    def _troubles(self, *beginnings: str) -> list[str]:
        return [
            f"{trouble.get('message')} (since {trouble.get('since')}"
            + (f"; {next_try(trouble['next'], self.now)})" if trouble.get("next") else ")")
            for trouble in self.service.get("trouble", ())
            if str(trouble.get("what")).startswith(beginnings)
            and self._concerns(str(trouble.get("what")))
        ]

    def _concerns(self, what: str) -> bool:
        """Tell whether a trouble that names a job names this one."""
        others = [job.id for job in self.seen.in_flight if job.id and job.id != self.job.id]
        return not any(other in what for other in others)

    def _need_s(self) -> float:
        found = self._description()
        limit = found.get("time_limit")
        return float(limit) + float(found.get("grace_s") or 0) if limit else 0.0

    def _description(self) -> Mapping[str, Any]:
        return self._of_job(lambda journal, job: journal.paper(job, "description"))

    def _record(self) -> Mapping[str, Any]:
        return self._of_job(Journal.record)

    def _of_job(self, read: Callable[[Journal, str], Any]) -> Mapping[str, Any]:
        """Return what is read of this job in the journal; {} when it is not to be had."""
        if self.config is None or not self.job.id:
            return {}
        try:
            found = read(Journal(str(self.config.cronjob.state / "journal")).read(), self.job.id)
        except (OSError, Damaged):
            return {}  # RACE: answered meanwhile; or not ours to read.
        return found if isinstance(found, Mapping) else {}

    def _ago(self, text: str | None) -> str:
        when = moment(text)
        return f"{span((self.now - when).total_seconds())} ago" if when else "unknown"


def _pilot(pilot: Mapping[str, Any]) -> str:
    """Return how people find a pilot: by the batch system's id."""
    return str(pilot.get("native_id") or pilot.get("pilot"))
