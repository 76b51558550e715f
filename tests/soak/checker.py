"""The checker: reads what a soak left, and says what must not have happened.

It knows nothing of how the product works; it reads the history, the journal, the trees of the
service hosts and of the workspace, and `facts.json`. What it looks for is in the names of RULES;
each gives the sentences of what it found.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import journals
import yaml
from soak import kinds
from soak.history import Event, read
from soak.kinds import KINDS, OLDER

ATTEMPTS, STARTS = 3, 10
"""The limits that every soak runs with."""

CODES = (0, 75, -9)
"""A pass may end so: done, to be tried again, or killed."""

SPOILT = (*CODES, 78)
"""Where system calls fail: a state that cannot be locked, or an answer that cannot be written, is
told to the operator."""

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

SHARED = ("instance", "probe", "trash")
"""What stays in a dropbox's own folder."""


@dataclass(frozen=True)
class Evidence:
    """What a soak left in a folder."""

    folder: Path
    events: list[Event] = field(repr=False)

    def of(self, name: str) -> list[Event]:
        """Return the events of one name."""
        return [event for event in self.events if event["event"] == name]

    @cached_property
    def drops(self) -> dict[str, Event]:
        """What was dropped, by word."""
        withdrawn = {event["word"] for event in self.of("withdrawn")}
        return {e["word"]: e for e in self.of("dropping") if e["word"] not in withdrawn}

    @cached_property
    def answers(self) -> dict[str, list[Event]]:
        """The answers that were seen, by word."""
        found: dict[str, list[Event]] = defaultdict(list)
        for event in self.of("answer"):
            found[event["word"]].append(event)
        return found

    @cached_property
    def journal(self) -> list[tuple[str, str, int, str]]:
        """What jobs wrote: start or end, J, attempt, P."""
        path = self.folder / "journal"
        lines = path.read_text().splitlines() if path.exists() else []
        words = [line.split() for line in lines]
        return [(w[0], w[1], int(w[2]), w[3]) for w in words if len(w) == 4]

    @cached_property
    def hurt(self) -> set[str]:
        """The pilots that were killed, or stopped for a while."""
        events = self.of("kill") + self.of("stop")
        return {event["pilot"] for event in events if event.get("pilot")}

    @cached_property
    def claims(self) -> dict[str, dict[int, str]]:
        """By J: which pilot made which attempt, as far as pilots and jobs wrote it down."""
        found: dict[str, dict[int, str]] = defaultdict(dict)
        for _, job, attempt, pilot in self.journal:
            found[job][attempt] = pilot
        for log in (self.folder / "workspace").glob("pilots/*/log"):
            for line in log.read_text(errors="replace").splitlines():
                words = line.split()
                if len(words) > 2 and words[1] == "claim":
                    job, counts, pilot = words[2].split(".")
                    found[job][int(counts[1:].partition("c")[0])] = pilot
        return found

    def crashes(self, answer: Event) -> int:
        """Count the attempts of an answered job whose pilot was hurt, or is not known."""
        known = self.claims.get(answer["id"], {})
        last = max([answer["attempts"] or 0, *known])
        return sum(known.get(n) is None or known[n] in self.hurt for n in range(1, last + 1))

    @property
    def hosts(self) -> list[Path]:
        """The folders of the service hosts."""
        return sorted((self.folder / "hosts").iterdir())


Rule = Callable[[Evidence], Iterator[str]]


def check(folder: Path) -> dict[str, list[str]]:
    """Return what is wrong, by the name of the rule that was broken."""
    evidence = Evidence(folder, read(folder / "history"))
    found = {name: list(rule(evidence)) for name, rule in RULES.items()}
    return {name: problems for name, problems in found.items() if problems}


# ---- answers -------------------------------------------------------------------------------------


def every_drop_is_answered(evidence: Evidence) -> Iterator[str]:
    """Yield drops that were never answered."""
    for word, drop in evidence.drops.items():
        if word not in evidence.answers:
            yield f"{word} ({drop['kind']}, {drop['name']}) was never answered"


def no_drop_is_answered_twice(evidence: Evidence) -> Iterator[str]:
    """Yield drops with several answers, and answers that nobody waited for."""
    for word, answers in evidence.answers.items():
        if word not in evidence.drops:
            yield f"an answer for {word}, which was never dropped"
        elif len(answers) > 1:
            yield f"{word} was answered {len(answers)} times: {[a['id'] for a in answers]}"
    ids = Counter(answer["id"] for answers in evidence.answers.values() for answer in answers)
    for job, count in ids.items():
        if count > 1:
            yield f"{job} answered {count} drops"
    for event in evidence.of("torn"):
        yield f"an answer that is no whole YAML: {event['path']}: {event['text'][:200]}"


def answers_are_as_undisturbed(evidence: Evidence) -> Iterator[str]:
    """Yield answers that differ from the undisturbed one for no good reason."""
    cancelled = {event["word"] for event in evidence.of("cancel")}
    killed = {(e["job"], e["attempt"]) for e in evidence.of("kill") if e["what"] == "job"}
    for word, answers in evidence.answers.items():
        drop, answer = evidence.drops.get(word), answers[0]
        if drop is None:
            continue
        kind = KINDS[drop["kind"]]
        said = (answer["status"], answer["reason"])
        if said == (kind.status, kind.reason) and kind.rc in (None, answer["rc"]):
            continue
        if said == ("error", "cancelled") and word in cancelled:
            continue
        if said == ("error", "exit_code") and (answer["id"], answer["attempts"]) in killed:
            continue
        if said == ("error", "pilot_died") and evidence.crashes(answer) >= ATTEMPTS:
            continue
        yield f"{word} ({drop['kind']}, {answer['id']}): {said}, rc {answer['rc']}: " + str(
            answer["message"]
        )


def each_history_tells_the_same(evidence: Evidence) -> Iterator[str]:
    """Yield differences between the state's own history and what users saw."""
    for host in evidence.hosts:
        path = host / "state" / "history.jsonl"
        lines = path.read_bytes().splitlines() if path.exists() else []
        told = {json.loads(line)["id"] for line in lines}
        seen = {
            answer["id"]
            for word, answers in evidence.answers.items()
            for answer in answers
            if evidence.drops.get(word, {}).get("host") == host.name
        }
        for job in sorted(told - seen):
            yield f"{host.name}: the history names {job}, whose answer nobody saw"
        for job in sorted(seen - told):
            yield f"{host.name}: the history lacks {job}"


# ---- outputs -------------------------------------------------------------------------------------


def outputs_are_whole_and_from_one_attempt(evidence: Evidence) -> Iterator[str]:
    """Yield outputs that were not, at the moment of the answer, what the answer says."""
    stood: dict[str, str | None] = {}
    for event in evidence.events:
        if event["event"] == "dropping" and KINDS[event["kind"]].older:
            text = kinds.digest((OLDER + event["word"]).encode())
            stood.update(dict.fromkeys(event["outputs"].values(), text))
        if event["event"] != "answer" or event["word"] not in evidence.drops:
            continue
        drop = evidence.drops[event["word"]]
        for key, path in drop["outputs"].items():
            wanted = stood.get(path)
            if event["status"] == "ok":
                text = kinds.content(event["id"], event["attempts"], drop["line"], drop["lines"])
                wanted = stood[path] = kinds.digest(text)
            if event["outputs"].get(key) != wanted:
                yield f"{event['word']} ({event['status']}): {path} holds something else"


def outputs_stay(evidence: Evidence) -> Iterator[str]:
    """Yield outputs that changed after the last answer about them, and files that are no output."""
    last: dict[str, str | None] = {}
    for event in evidence.of("answer"):
        drop = evidence.drops.get(event["word"])
        if drop is not None:
            last.update({path: event["outputs"].get(k) for k, path in drop["outputs"].items()})
    for path, wanted in last.items():
        file = _moved(evidence, path)
        if kinds.digest(file.read_bytes() if file.exists() else None) != wanted:
            yield f"{path} changed after its answer"
    known = {str(_moved(evidence, path)) for path in last}
    for host in evidence.hosts:
        for file in sorted((host / "out").iterdir()):
            if str(file) not in known:
                yield f"{file} is no output that was asked for and answered"


def _moved(evidence: Evidence, path: str) -> Path:
    """Return where an output lies now: a soak's folder may have been copied."""
    parts = Path(path).parts
    return evidence.folder.joinpath(*parts[len(parts) - parts[::-1].index("hosts") - 1 :])


# ---- attempts ------------------------------------------------------------------------------------


def each_attempt_starts_once(evidence: Evidence) -> Iterator[str]:
    """Yield attempts that began twice, and jobs that began too often."""
    starts = Counter((job, n) for what, job, n, _ in evidence.journal if what == "start")
    for (job, attempt), count in starts.items():
        if count > 1:
            yield f"{job}: attempt {attempt} began {count} times"
        if attempt > STARTS:
            yield f"{job}: attempt {attempt} is beyond the limit"


def results_come_from_the_last_attempt(evidence: Evidence) -> Iterator[str]:
    """Yield answers of an attempt that never came to its end, or after which another began."""
    began: dict[str, int] = defaultdict(int)
    ended = {(job, n) for what, job, n, _ in evidence.journal if what == "end"}
    for what, job, attempt, _ in evidence.journal:
        if what == "start":
            began[job] = max(began[job], attempt)
    for answers in evidence.answers.values():
        for answer in answers:
            job, attempt = answer["id"], answer["attempts"] or 0
            if answer["status"] == "ok" and (job, attempt) not in ended:
                yield f"{job} is ok, but attempt {attempt} never came to its end"
            if began.get(job, 0) > attempt:
                yield f"{job} is answered by attempt {attempt}, but {began[job]} began"


def jobs_belong_to_answers(evidence: Evidence) -> Iterator[str]:
    """Yield jobs that ran and that no answer names."""
    answered = {answer["id"] for answers in evidence.answers.values() for answer in answers}
    for job in sorted({job for _, job, _, _ in evidence.journal} - answered):
        yield f"{job} ran, and no answer names it"


def pilots_stay_within_their_bound(evidence: Evidence) -> Iterator[str]:
    """Yield moments with more pilots than there may be."""
    limit = json.loads((evidence.folder / "facts.json").read_text())["pilots"]
    for event in evidence.of("pilots"):
        if event["alive"] > limit:
            yield f"{event['alive']} pilots at a time, and {limit} are the most"


# ---- the end -------------------------------------------------------------------------------------


def it_becomes_quiet(evidence: Evidence) -> Iterator[str]:
    """Yield why the soak was given up."""
    yield from (f"stuck: {event['trouble']}" for event in evidence.of("stuck"))


def passes_end_well(evidence: Evidence) -> Iterator[str]:
    """Yield passes that ended as none should."""
    facts = json.loads((evidence.folder / "facts.json").read_text())
    codes = SPOILT if facts.get("calls") else CODES
    for event in evidence.of("pass"):
        if event["code"] not in codes or "Traceback" in event["said"]:
            yield f"a pass of {event['host']} ended with {event['code']}: {event['said']}"


def nothing_is_left(evidence: Evidence) -> Iterator[str]:
    """Yield files and folders that should be gone."""
    for host in evidence.hosts:
        for job in journals.jobs(host / "state" / "journal"):
            yield f"{host.name}: the record of {job} is left"
        yield from _left(host / "dropbox" / ".hpc_batch", SHARED)
        words: Counter[str] = Counter()
        for file in sorted((host / "dropbox").iterdir()):
            if ".job.finished" in file.name:
                words[yaml.load(file.read_bytes(), LOADER)["x-submission"]] += 1
            elif file.name != ".hpc_batch":
                yield f"{file} is left"
        for word, count in words.items():
            if count > 1 or word not in evidence.answers:
                yield f"{host.name}: {count} answers of {word} lie in the dropbox"
    workspace = evidence.folder / "workspace"
    for name in ("incoming", "ready", "running", "jobs"):
        yield from _left(workspace / name)
    for folder in sorted((workspace / "done").iterdir()):
        yield from _left(folder)


def _left(folder: Path, but: tuple[str, ...] = ()) -> Iterator[str]:
    if folder.exists():
        for file in sorted(folder.iterdir()):
            if file.name not in but:
                yield f"{file} is left"


RULES: dict[str, Rule] = {
    rule.__name__.replace("_", " "): rule
    for rule in (
        it_becomes_quiet,
        every_drop_is_answered,
        no_drop_is_answered_twice,
        answers_are_as_undisturbed,
        each_history_tells_the_same,
        outputs_are_whole_and_from_one_attempt,
        outputs_stay,
        each_attempt_starts_once,
        results_come_from_the_last_attempt,
        jobs_belong_to_answers,
        pilots_stay_within_their_bound,
        passes_end_well,
        nothing_is_left,
    )
}


def figures(folder: Path) -> dict[str, Any]:
    """Return counts that tell what the soak went through."""
    evidence = Evidence(folder, read(folder / "history"))
    answers = [answers[0] for answers in evidence.answers.values()]
    starts = Counter(n for what, _, n, _ in evidence.journal if what == "start")
    return {
        "answers": len(answers),
        "reasons": dict(Counter(answer["reason"] for answer in answers).most_common()),
        "starts": dict(sorted(starts.items())),
        "pilots hurt": len(evidence.hurt),
        "passes killed": sum(event["code"] == -9 for event in evidence.of("pass")),
    }
