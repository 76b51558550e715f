"""A world of two service hosts on one workspace, in which a test decides everything that happens.

Each public verb is something that may happen; `verify` looks at the invariants, `heal` ends all
trouble, runs to quiet, and looks whether everybody got the one answer that was due. A story is a
list of verbs with their arguments, and told again (`tell`) it is the same story.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from simulation.actors import Actor
from simulation.cluster import Cluster, Pilot
from simulation.login import Net
from simulation.system import RAW, System
from world import World

from hpc_batch import submitter
from hpc_batch.errors import ConfigError, HpcBatchError
from hpc_cluster import files, ticket

SCRIPTS = Path(__file__).resolve().parents[2] / "on_hpc" / "scripts"

HOSTS = ("A", "B")
NAMES = ("one", "two")
ATTEMPTS, STARTS = 3, 10

TEMPLATES = {
    "carry": "#!/bin/sh\nrun 2\ncopy <<source>> <<target>>\n",
    "pair": "#!/bin/sh\nwrite <<word>> <<target>>\nwrite <<word>> <<second>>\n",
    "long": "#!/bin/sh\nrun 100\nwrite <<word>> <<target>>\n",
    "fail": "#!/bin/sh\nwrite <<word>> <<target>>\nexit 3\n",
    "none": "#!/bin/sh\nrun 1\n",
}
REASONS = {"fail": "exit_code", "none": "stage_out", "bad": "rejected"}
"""How each kind of job ends undisturbed, where that is not `completed`."""
KINDS = (*TEMPLATES, "bad")

HOP_S = 25.0
"""Time passes in hops of so long; after each, everybody whose time has come goes on."""

LEASE_S = 600.0


@dataclass
class Drop:
    """One job file that somebody dropped."""

    token: str
    host: str
    name: str
    kind: str
    text: str
    targets: tuple[str, ...]
    complete: bool = False
    """All of it is in the dropbox."""
    cancelled: bool = False
    """Somebody asked to cancel a job of this name meanwhile."""
    late: bool = False
    """It was taken before it was complete."""
    handle: Any = None
    """Its writer has it open."""
    answers: list[dict[str, Any]] = field(default_factory=list)


class Host:
    """One service host."""

    def __init__(self, root: Path, name: str, workspace: Path) -> None:
        self.name = name
        self.here = World(
            root / name,
            cronjob={"settle": 10},
            hpc_env={"workspace": workspace, "scripts": SCRIPTS},
            pilot={"max": 2, "slots": 2, "linger": 60},
            limits={"attempts": ATTEMPTS, "starts": STARTS},
        )
        for kind, text in TEMPLATES.items():
            self.here.template(kind, text)
        self.config = self.here.config
        self.actor: Actor | None = None
        """The pass that is under way."""


class TwoHosts:
    """The world. Verbs take and return plain values."""

    def __init__(self, root: Path, seed: int = 0) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.root = root
        self.system = System(root, seed)
        self.system.watch = self._watch
        self.cluster = Cluster.here = Cluster(self.system)
        self.net = Net(self.system)
        (root / "C").mkdir()
        self.workspace = root / "C" / "W"
        self.hosts = {name: Host(root, name, self.workspace) for name in HOSTS}
        self.drops: list[Drop] = []
        self.stands: dict[str, str | None] = {}
        """What should stand at each output's path."""
        self.wrong: list[str] = []
        self.deaths: dict[str, int] = {}
        """J: so many pilots that ran it were killed, or looked dead for long."""
        self.suspects: set[str] = set()
        """Pilots that somebody may take for dead."""
        self.jobs: dict[str, Drop] = {}
        """J: the drop it is."""

    # ---- the user ----------------------------------------------------------------------------

    def drop(self, host: str, name: str, kind: str, way: str) -> None:
        """Drop a job: `atomic`, `naive` (written in place) or `pieces` (more comes later)."""
        here = self.hosts[host].here
        target = here.dropbox / f"{name}.job"
        if os.path.lexists(target) or f"{host}/dropbox" in self.system.full:
            return
        token = f"tok{len(self.drops):05d}"
        targets = self._targets(host, name, kind)
        drop = Drop(token, host, name, kind, self._text(host, token, kind, targets), targets)
        drop.cancelled = os.path.lexists(f"{target}.cancel")
        if way == "atomic":
            drop.text += "...\n"
            aside = here.dropbox / f".{name}.tmp"
            _write(aside, drop.text)
            drop.complete = True
            self._dropped(drop)
            os.rename(aside, target)
            return
        self._dropped(drop)
        half = len(drop.text) // 2
        drop.handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.write(drop.handle, drop.text[:half].encode())
        if way == "naive":
            self._complete(drop)

    def _dropped(self, drop: Drop) -> None:
        self.drops.append(drop)
        for path in drop.targets:
            self.stands.setdefault(path, None)

    def more(self) -> None:
        """The rest of what is dropped in pieces comes."""
        for drop in self.drops:
            self._complete(drop)

    def _complete(self, drop: Drop) -> None:
        if drop.handle is not None and f"{drop.host}/dropbox" not in self.system.full:
            os.write(drop.handle, drop.text[len(drop.text) // 2 :].encode())
            os.close(drop.handle)
            drop.handle, drop.complete = None, True

    def _targets(self, host: str, name: str, kind: str) -> tuple[str, ...]:
        out = self.hosts[host].here.out
        both = (str(out / f"{name}.out"), str(out / f"{name}.second"))
        return both if kind == "pair" else both[:1]

    def _text(self, host: str, token: str, kind: str, targets: tuple[str, ...]) -> str:
        job: dict[str, Any] = {"script": kind if kind != "bad" else "no_such_script"}
        job["output_map"] = dict(zip(("target", "second"), targets))
        if kind == "carry":
            source = self.hosts[host].here.root / f"{token}.in"
            # Half of them are above 64 KiB and go through the store.
            source.write_text(token + "x" * (70_000 if int(token[3:]) % 2 else 10))
            job["input_map"] = {"source": str(source)}
        elif kind not in ("none", "bad"):
            job["args"] = {"word": token}
        return f"# {token}\n" + yaml.safe_dump(job)

    def older(self, host: str, name: str) -> None:
        """The user has a file at an output's path."""
        path = str(self.hosts[host].here.out / f"{name}.out")
        if path not in self.stands:
            _write(Path(path), "older")
            self.stands[path] = "older"

    def consume(self, host: str, name: str) -> None:
        """The user reads and deletes an answer."""
        path = self.hosts[host].here.finished(name)
        if os.path.lexists(path):
            os.unlink(path)

    def cancel(self, host: str, name: str) -> None:
        """Somebody asks to cancel a job."""
        if f"{host}/dropbox" in self.system.full:
            return
        _write(self.hosts[host].here.dropbox / f"{name}.job.cancel", "")
        for drop in self.drops:
            if (drop.host, drop.name) == (host, name) and not drop.answers:
                drop.cancelled = True

    # ---- passes ------------------------------------------------------------------------------

    def run(self, host: str, steps: int | None) -> None:
        """Begin a pass, or let the one that is under way go on, for so many effects."""
        mine = self.hosts[host]
        if mine.actor is None:
            mine.actor = self.new_pass(host)
        if self._go(mine.actor, steps) == "over":
            error, mine.actor = mine.actor.error, None
            if isinstance(error, ConfigError) or not isinstance(error, (HpcBatchError, type(None))):
                self.wrong.append(f"the pass on {host} ended with {error!r}")
                raise AssertionError(self.wrong[-1]) from error

    def new_pass(self, host: str) -> Actor:
        """Return a pass that has not begun."""
        config, options = self.hosts[host].config, submitter.Options()
        return Actor(self.system.steps, host, lambda: submitter.run(config, options))

    def kill(self, host: str) -> None:
        """Kill a pass; its far end works off what it had received."""
        actor = self.hosts[host].actor
        if actor is not None:
            for thread in (*actor.__dict__.get("threads", ()), actor):
                thread.kill()
            self.hosts[host].actor = None

    def late(self, steps: int) -> None:
        """Far ends whose pass is gone go on."""
        for far in self.net.late():
            self._go(far.actor, steps)

    def _go(self, actor: Actor, steps: int | None) -> str:
        self.system.steps.left = steps
        try:
            while True:
                why = actor.resume()
                if why != "sleep":
                    return why
                self.system.now = max(self.system.now, actor.wake)
        finally:
            self.system.steps.left = None

    # ---- pilots ------------------------------------------------------------------------------

    def _pilot(self, number: int) -> Pilot | None:
        alive = [pilot for pilot in self.cluster.pilots.values() if pilot.alive]
        return alive[number % len(alive)] if alive else None

    def turn(self, number: int, steps: int | None) -> None:
        """Let a pilot go on."""
        pilot = self._pilot(number)
        if pilot is not None and not pilot.paused:
            self.system.steps.left = steps
            pilot.turn()
            self.system.steps.left = None

    def kill_pilot(self, number: int) -> None:
        """Kill a pilot and its jobs."""
        pilot = self._pilot(number)
        if pilot is not None:
            self._suspect(pilot)
            pilot.kill()

    def pause(self, number: int) -> None:
        """Stop a pilot where it stands."""
        pilot = self._pilot(number)
        if pilot is not None:
            pilot.paused = True
            self._suspect(pilot)

    def wake(self) -> None:
        """All pilots go on."""
        for pilot in self.cluster.pilots.values():
            pilot.paused = False

    def _suspect(self, pilot: Pilot) -> None:
        self.suspects.add(pilot.name)

    # ---- the world around --------------------------------------------------------------------

    def wait(self, seconds: float) -> None:
        """Time passes, and pilots go on."""
        end = self.system.now + seconds
        hop = max(HOP_S, seconds / 40)
        while self.system.now < end:
            self.system.now = min(end, self.system.now + hop)
            if hop > LEASE_S / 4:
                self.suspects.update(self.cluster.pilots)
            for pilot in list(self.cluster.pilots.values()):
                if pilot.alive and not pilot.paused:
                    pilot.turn()

    def disturb(self, host: str, after: int, kind: str) -> None:
        """A message of this host's will be `lost`, its answer will be (`mute`), or it is `late`."""
        self.net.faults[host] = (after, kind)

    def wire(self, up: bool) -> None:
        """The net is up, or down."""
        self.net.down = not up

    def batch(self, silent: bool, refuses: bool, unclear: int) -> None:
        """How the batch system behaves."""
        self.cluster.silent, self.cluster.refuses = silent, refuses
        self.cluster.unclear = unclear

    def fill(self, what: str) -> None:
        """A disk is full: the cluster's (C), or that of a host's folder (A/dropbox, B/state, …)."""
        self.system.full.add(what)

    def free(self) -> None:
        """All disks have room."""
        self.system.full.clear()

    def clock(self, host: str, seconds: float) -> None:
        """A host's own clock jumps."""
        self.system.wall[host] = self.system.wall.get(host, 0.0) + seconds

    def stale(self, stale: bool) -> None:
        """Listings may be old from now on, or are never."""
        self.system.stale = stale

    # ---- what must hold ----------------------------------------------------------------------

    def _watch(self, name: str, source: str, target: str) -> None:
        """See every rename while it happens."""
        if name != "rename":
            return
        if source.endswith(".answer") and ".finished" in target:
            self._answered(os.path.basename(source).split(".")[0], target)
        elif source.endswith(".job") and target.endswith(".drop"):
            text = Path(target).read_text()
            drop = next((d for d in self.drops if d.token in text), None)
            if drop is None:
                self.wrong.append(f"taken, and nobody dropped it: {text!r}")
            else:
                drop.late = not drop.complete
                self.jobs[os.path.basename(target).split(".")[0]] = drop
        elif "/W/running/" in source and "/W/running/" not in target:
            self._left(ticket.parse("running", os.path.basename(source)), target)

    def _left(self, was: ticket.Ticket | None, target: str) -> None:
        """A ticket has left running."""
        assert was is not None
        folder, name = os.path.split(target)
        now = ticket.parse("ready" if folder.endswith("/ready") else "done", name)
        assert now is not None
        crashed = now.crashes > was.crashes or now.kind == "died"
        if crashed:
            self.deaths[was.job] = self.deaths.get(was.job, 0) + 1
            if was.pilot not in self.suspects:
                self.wrong.append(f"{was.name} was taken from a pilot that lives: {target}")
        if now.crashes >= ATTEMPTS or now.starts > STARTS:
            self.wrong.append(f"I7: {target}")

    def _answered(self, job: str, target: str) -> None:
        """I3, I4, I5: an answer has just been shown."""
        text = Path(target).read_text()
        drop = self.jobs.get(job)
        if drop is None:
            self.wrong.append(f"an answer that belongs to nobody: {target}")
            return
        answer = yaml.safe_load(text)
        node = answer["job"]
        drop.answers.append(node)
        if len(drop.answers) > 1:
            self.wrong.append(f"I3: {drop.token} is answered {len(drop.answers)} times")
        whole = drop.complete or node["reason"] not in ("cancelled", "rejected")
        if whole and answer.get("script") not in (drop.kind, "no_such_script"):
            self.wrong.append(f"I4: the answer of {drop.token} is another's: {text}")
        if node["status"] == "ok":
            self.stands.update((path, drop.token) for path in drop.targets)
        problem = self._outputs(frozenset(self.stands) - set(drop.targets))
        if problem:
            self.wrong.append(f"I4, I5 at the answer of {drop.token}, {node}: {problem}")

    def _outputs(self, busy: frozenset[str] = frozenset()) -> str:
        """Return what is wrong at outputs' paths; of those in `busy`, only what is partial."""
        for name, host in self.hosts.items():
            for output in ("one.out", "two.out", "one.second", "two.second"):
                path = str(host.here.out / output)
                found = _content(path)
                mine = {d.token for d in self.drops if path in d.targets and d.host == name}
                if found is not None and found != "older" and found not in mine:
                    return f"{path} holds {found!r}"
                if path in self.stands and path not in busy and found != self.stands[path]:
                    return f"{path} holds {found!r} and not {self.stands.get(path)!r}"
        return ""

    def verify(self) -> None:
        """Look at the invariants, as they must hold at any moment."""
        assert not self.wrong, self.wrong
        for far in self.net.far_ends:
            assert far.actor.error is None, repr(far.actor.error)
        for pilot in self.cluster.pilots.values():
            assert pilot.actor.error is None, repr(pilot.actor.error)
        busy = {path for d in self.drops if not d.answers for path in d.targets}
        problem = self._outputs(frozenset(busy))
        assert not problem, problem
        self._one_place()
        self._one_ticket()
        self._one_pilot_in_a_slot()

    def _one_place(self) -> None:
        """I1: what was dropped is in the dropbox, or taken, or answered."""
        for name, host in self.hosts.items():
            inner = host.here.dropbox / ".hpc_batch"
            held = [host.here.dropbox / f"{each}.job" for each in NAMES]
            if inner.exists():
                held += [inner / each for each in RAW["listdir"](inner) if each.endswith(".drop")]
            texts = [text for text in map(_content, held) if text is not None]
            for drop in self.drops:
                if drop.host != name or not drop.complete:
                    continue
                count = sum(drop.token in text for text in texts)
                if drop.answers:
                    assert count <= 1, f"{drop.token} is answered, and in {count} places"
                else:
                    assert count == 1, f"I1: {drop.token} is in {count} places"

    def _one_ticket(self) -> None:
        """I2."""
        seen: dict[str, str] = {}
        folders = [self.workspace / "ready", self.workspace / "running"]
        if (self.workspace / "done").exists():
            done = self.workspace / "done"
            folders += [done / name for name in RAW["listdir"](done)]
        for folder in folders:
            for name in RAW["listdir"](folder) if folder.exists() else ():
                job = name.split(".")[0]
                assert job not in seen, f"I2: {seen[job]} and {folder / name}"
                seen[job] = str(folder / name)

    def _one_pilot_in_a_slot(self) -> None:
        """I12: one that was found dead may still be stuck somewhere."""
        held: dict[int, str] = {}
        for name, pilot in self.cluster.pilots.items():
            folder = self.workspace / "pilots" / name
            if not pilot.alive or (folder / "dead.json").exists():
                continue
            if not (folder / "pilot.json").exists():
                continue  # forgotten in a power cut; its slot is, too
            slot = json.loads((folder / "pilot.json").read_text())["slot"]
            assert slot not in held, f"I12: {held[slot]} and {name} in slot {slot}"
            held[slot] = name

    # ---- the end -----------------------------------------------------------------------------

    def heal(self) -> None:
        """End all trouble, run to quiet, and look at what everybody got."""
        self.net.down, self.net.faults = False, {}
        self.batch(False, False, 0)
        self.free()
        self.stale(False)
        self.wake()
        self.more()
        for far in self.net.late():
            self._go(far.actor, None)
        self.until_quiet()
        for drop in self.drops:
            self.check(drop)

    def until_quiet(self, hosts: Sequence[str] = HOSTS) -> None:
        """Make passes until everything is answered and nothing is in flight."""
        for number in range(120):
            for host in hosts:
                self.run(host, None)
                self.run(host, None)  # the first one may only have ended a pass under way
                self.verify()
            if self.is_quiet():
                return
            self.wait(30.0 if number < 20 else 600.0)
            self.verify()
        raise AssertionError(f"not quiet: {self.picture()}")

    def is_quiet(self) -> bool:
        taken = any(h.here.records() for h in self.hosts.values())
        return not taken and all(d.answers for d in self.drops)

    def check(self, drop: Drop) -> None:
        """I8: who was not disturbed by dying pilots ends as undisturbed."""
        assert len(drop.answers) == 1, f"{drop.token} got {len(drop.answers)} answers"
        reason = drop.answers[0]["reason"]
        job = next(job for job, one in self.jobs.items() if one is drop)
        allowed = {REASONS.get(drop.kind, "completed")}
        if drop.late:
            allowed.add("rejected")  # its writer took ten minutes
        if drop.cancelled:
            allowed.add("cancelled")
        if self.deaths.get(job, 0) >= ATTEMPTS:
            allowed.add("pilot_died")
        assert reason in allowed, f"{drop.token} ({drop.kind}) ended so: {drop.answers[0]}"

    def clean(self) -> None:
        """After two days nothing is left on the cluster of what had been there."""
        self.wait(40 * 3600.0)
        for _ in range(30 if self.litter() else 0):
            self.wait(3600.0)  # no gap between passes counts for more
            for host in HOSTS:
                self.run(host, None)
        for host in HOSTS:
            self.consume(host, "one")
            self.drop(host, "one", "pair", "atomic")
        self.until_quiet()
        for host in HOSTS:
            self.run(host, None)
        left = self.litter()
        assert not left, f"left behind: {left}"

    def litter(self) -> list[str]:
        """Return what lies about though every job is answered."""
        left = [
            str(path.relative_to(self.workspace))
            for pattern in ("incoming/*", "ready/*", "running/*", "done/*/*", "jobs/*", "trash/*")
            for path in self.workspace.glob(pattern)
        ]
        inputs = RAW["listdir"](self.workspace / "inputs") if self.workspace.exists() else []
        left += [name for name in inputs if "." in name]
        for host in self.hosts.values():
            inner = files.names(str(host.here.dropbox / ".hpc_batch"))
            left += [name for name in inner if name not in ("instance", "probe", "trash")]
            left += [n for n in RAW["listdir"](host.here.out) if n.startswith(".")]
        return left

    def picture(self) -> str:
        """Return what tells why it does not become quiet."""
        lines = []
        for name, host in self.hosts.items():
            lines.append(f"{name}: {host.here.records()}")
            lines.append(str(sorted(RAW["listdir"](host.here.dropbox))))
            log = host.here.state / "log"
            lines.append(log.read_text()[-2000:] if log.exists() else "")
        for pattern in ("incoming/*", "ready/*", "running/*", "done/*/*", "slots/*/*"):
            lines += [str(path.relative_to(self.root)) for path in self.workspace.glob(pattern)]
        trouble = self.workspace / "pilots" / "trouble"
        lines.append(trouble.read_text() if trouble.exists() else "no trouble")
        return "\n".join(lines)

    def end(self) -> None:
        """Leave no thread behind."""
        for host in HOSTS:
            self.kill(host)
        for far in self.net.far_ends:
            far.actor.kill()
        for pilot in self.cluster.pilots.values():
            pilot.kill()
        for drop in self.drops:
            if drop.handle is not None:
                os.close(drop.handle)


def _write(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


TOKEN = re.compile(r"(tok[0-9]{5})x*\Z")


def _content(path: Any) -> str | None:
    """Return a file's text; of an output its token, where it is whole."""
    try:
        text = Path(path).read_text()
    except FileNotFoundError:
        return None
    match = TOKEN.fullmatch(text)
    if match is None or len(text) not in (8, 18, 70_008):
        return text
    return match[1]
