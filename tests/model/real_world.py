"""The real world of one job, driven by the names of the model's steps, and seen as a model's state.

The pass is the real `Steps` over real folders; its far end is the real `Verbs` in a puppet of its
own, which outlives a killed pass; files come back over the real data channel. Pilots are the real
verbs of `Spool` and the real `Attempt`, a puppet too, up to where it would start the script; what
that would leave this module writes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import journals
from model.puppet import Puppet, current
from model.world_state import Output
from model.world_state import World as State_
from world import World

from hpc_batch import hosts
from hpc_batch.answer import ANSWER_BYTES
from hpc_batch.collecting import Collecting
from hpc_batch.errors import RemoteError
from hpc_batch.lane import Lane
from hpc_batch.listing import look
from hpc_batch.records import Records
from hpc_batch.session import Answer, Session, Told
from hpc_batch.sight import Sight
from hpc_batch.staging import Staging
from hpc_batch.state import State, hold
from hpc_batch.steps import Steps
from hpc_batch.trouble import Ledger
from hpc_batch.upkeep import Upkeep
from hpc_cluster import files
from hpc_cluster.attempt import Attempt, Context
from hpc_cluster.spool import Spool
from hpc_cluster.ticket import NO_PILOT, Ticket
from hpc_cluster.verbs import Verbs
from hpc_cluster.walltime import Walltime

PILOTS = ("a" * 16, "b" * 16)
NAME = "thing.job"


class Near(Session):
    """A session whose far end is a puppet of this process; only files travel for real."""

    def __init__(self, real: RealWorld, state: State) -> None:
        super().__init__(real.host, real.config.remote, real.config.env, state.instance)
        self.real = real
        self.far: Puppet | None = None
        self.verbs = Verbs(real.spool, self.id, state.instance, lambda s: None)

    def _begin(self, verb: str, read: Callable[[Any], Told], **args: Any) -> Answer[Told]:
        asked = json.loads(json.dumps(args))
        self.far = far = Puppet(lambda: self.verbs.do(verb, asked), self.real.effect)
        while not far.over:
            current().stop(str(far.at))
            far.go()
        if far.error is not None:
            raise RemoteError(str(far.error))
        result = json.loads(json.dumps(far.result))
        return Answer(lambda: read(result))


class NoUpkeep(Upkeep):
    """Pilots are moved by the model."""

    def __init__(self) -> None:
        pass

    def ask_after_publishing(self, connection: Any) -> None:
        pass

    def ask_before_cleaning(self, connection: Any) -> None:
        pass


class Wiring:
    """What `Steps` needs of a connection."""

    def __init__(self, session: Near, records: Records) -> None:
        self.session = session
        self.lane = Lane(session.data, lambda: None)
        self.staging = Staging(session, records, self.lane, session.data)
        self.collecting = Collecting(session, records, self.lane, session.data)


class RealWorld:
    """Dropbox, state and workspace of one job."""

    def __init__(self, root: Path, existing: tuple[bool, ...]) -> None:
        self.here = World(root, limits={"attempts": 2, "starts": 3})
        lines = "".join(f"echo new > <<o{k}>>\n" for k in range(len(existing)))
        self.here.template("make", "#!/bin/sh\n" + lines)
        self.paths = [self.here.out / f"{k}.out" for k in range(len(existing))]
        for path, there in zip(self.paths, existing):
            if there:
                path.write_text("old")
        targets = {f"o{k}": str(path) for k, path in enumerate(self.paths)}
        self.here.drop("thing", "make", output_map=targets)
        self.config = self.here.config
        self.host = hosts.connect(self.config.remote)
        self.spool, _ = Spool.make(str(self.here.workspace))
        self.job = ""
        self.pilots: list[Ticket | None] = [None, None]
        self._preparing: list[Puppet | None] = [None, None]
        self.near: Puppet | None = None
        self.late: Near | None = None
        self.session: Near | None = None
        self._held: list[int] = []
        self._wires: list[Near] = []
        with hold(self.config):
            self.begin_pass()

    def close(self) -> None:
        for session in self._wires:
            session.close()
        self.host.close()
        for descriptor in self._held:
            os.close(descriptor)
        for puppet in (self.near, self.late.far if self.late else None, *self._preparing):
            if puppet is not None and not puppet.over:
                puppet.go("kill")

    # ---- the pass ----------------------------------------------------------------------------

    def begin_pass(self) -> None:
        """Forget everything that was in memory, and read it from disk."""
        self.state = State(self.config)
        self.state.begin()
        self.records = Records(self.state.path("journal")).load()
        self.sight = Sight()
        self.steps = Steps(
            self.config,
            self.state,
            self.records,
            Ledger(self.state),
            self._connect,
            self.sight,
            NoUpkeep(),
            keep=False,
        )
        self.session = None

    def _connect(self) -> Any:
        self.session = Near(self, self.state)
        self._wires.append(self.session)
        return Wiring(self.session, self.records)

    def begin_step(self, step: str) -> None:
        """Let the pass begin a step; it stands before the first effect."""
        if step == "take":
            drops = look(self.here.dropbox).drops
            self.near = Puppet(lambda: self.steps.intake.take(drops), self.effect)
            return
        record = next(iter(self.records))
        census = self.spool.census(self.state.instance)
        found = {n.split(".")[0]: ("done", n) for n in census.done}
        self.sight.census = found  # type: ignore[assignment]
        act = self.steps.perform[step]  # type: ignore[index]
        self.near = Puppet(lambda: act([record]), self.effect)

    def kill(self, *, late: bool) -> None:
        """Kill the pass; its far end goes on later, or dies."""
        session = self.session
        assert self.near is not None
        self.near.go("kill")
        self.near = None
        far = session.far if session is not None else None
        if far is not None and not far.over:
            if late:
                self.late_dies()
                self.late = session
            else:
                far.go("kill")
        self.begin_pass()

    def late_dies(self) -> None:
        if self.late is not None and self.late.far is not None and not self.late.far.over:
            self.late.far.go("kill")
        self.late = None

    def effect(self, name: str, args: tuple[Any, ...]) -> str | None:
        """Name the effects that count, as the model does; None for all others."""
        path = os.fsdecode(args[0]) if isinstance(args[0], (str, bytes, os.PathLike)) else ""
        if name in ("ftruncate", "pwrite"):
            held = os.readlink(f"/proc/self/fd/{args[0]}")
            if name == "pwrite":
                return self._saved(Path(held), bytes(args[1]))
            return "fill" if held.endswith(".answer") else None
        if name == "open" and path.endswith(".answer") and args[1] & os.O_CREAT:
            return "reserve"
        other = os.fsdecode(args[1]) if name in ("rename", "link") else ""
        if path.startswith(str(self.here.workspace)):
            return self._far_effect(name, path, other, args)
        base, there = os.path.basename(path), os.path.lexists(path)
        if name == "rename" and other.endswith(".drop"):
            return "rename drop"
        if name == "rename" and other.endswith(".finished"):
            return "rename"
        if name == "unlink" and there:
            if base.endswith(".answer"):
                return "discard"
            if base.endswith((".drop", ".cancel")) and ".hpc_batch" in path:
                return "drop"
            if base == NAME + ".cancel":
                return "remove cancel"
        inside = path.startswith(str(self.here.out))
        return self._output_effect(name, path, other, args) if inside else None

    def _saved(self, path: Path, line: bytes) -> str | None:
        """Name the line of a new phase in a journal; None for all that is written elsewhere."""
        if path != self.here.state / "journal":
            return None
        before = next(iter(self.here.records()), None)
        if b"{" not in line:
            return "remove record"
        phase = json.loads(line[line.index(b"{") :].partition(b"\t")[0])["phase"]
        return None if before is not None and before["phase"] == phase else f"save {phase}"

    def _output_effect(self, name: str, path: str, other: str, args: Any) -> str | None:
        base, there = os.path.basename(path), os.path.lexists(path)
        beside = re.fullmatch(r"\.hpcb-.*-(\d)\.(a\d+|old)", base)
        if name == "open" and beside and args[1] & os.O_CREAT:
            return "fetch"
        if not there:
            return None
        phase = next(iter(self.records)).phase
        if name == "unlink" and phase == "CLEANING":
            return "tidy"
        if name == "link" and not os.path.lexists(other):
            return f"keep {base[0]}"
        if name == "rename" and beside:
            if beside[2] != "old":
                self._held.append(os.open(path, os.O_RDONLY))  # keeps the inode apart
                return f"put {beside[1]}"
            if os.path.lexists(other) and os.path.samefile(path, other):
                return None
            return f"restore {beside[1]}"
        if name == "unlink" and beside:
            return f"{'restore' if beside[2] == 'old' else 'forget'} {beside[1]}"
        return f"remove {base[0]}" if name == "unlink" else None

    def _far_effect(self, name: str, path: str, other: str, args: Any) -> str | None:
        inner = os.path.relpath(path, self.here.workspace).split("/")
        making = name == "open" and args[1] & os.O_CREAT
        if name == "mkdir" and inner == ["jobs", self.job]:
            return "make folder"
        if making and inner[0] == "incoming":
            return "write ticket"
        if making and inner[-1] == "cancel":
            return "flag"
        if name in ("link", "rename") and other.endswith("/description.json"):
            return "load"
        if name == "rename" and inner[0] == "incoming":
            return "publish"
        if name == "rename" and inner[0] == "ready" and "/done/" in other:
            return "finish"
        if name == "rename" and "/trash/" in other and inner == ["jobs", self.job]:
            return "discard"
        if name == "unlink" and inner[0] == "incoming":
            return "incoming"
        if name == "unlink" and inner[0] in ("ready", "running", "done"):
            return "tickets"
        return None

    # ---- everybody else ----------------------------------------------------------------------

    def happen(self, name: str) -> None:
        """Do what the model's step of this name says: user, pilots, reaper, sweep, cancel file."""
        who, _, what = name.partition(": ")
        if who in ("p", "q"):
            self._pilot("pq".index(who), what)
        elif who == "user":
            self._user(what)
        elif name == "cancel file: move":
            self.steps.intake.cancel(NAME, self.job)
        elif name == "cancel file: no such job":
            os.unlink(self.here.dropbox / (NAME + ".cancel"))
        elif name == "reaper: crash":
            assert self.spool.crash(self.spool.tickets("running")[0], 2, 3) != "gone"
        elif who == "sweep":
            verbs = Verbs(self.spool, "f" * 16, self.state.instance, lambda s: None)
            verbs.orphan_s = -5
            verbs.do("sweep", {"known": [r.id for r in self.records]})
        else:
            raise AssertionError(name)

    def _user(self, what: str) -> None:
        if what == "cancel":
            (self.here.dropbox / (NAME + ".cancel")).touch()
        elif what == "withdraw":
            (self.here.dropbox / NAME).unlink()
        elif what == "read":
            self.here.finished("thing").unlink()
        elif what.startswith("put"):
            self.paths[int(what[-1])].write_text("old")
        else:
            self.paths[int(what[-1])].unlink()

    def _pilot(self, i: int, what: str) -> None:
        if what == "claim":
            self.pilots[i] = self.spool.claim(self.spool.tickets("ready")[0], PILOTS[i])
            assert self.pilots[i] is not None
            return
        ticket = self.pilots[i]
        assert ticket is not None
        if what == "prepare" or what.startswith("restart"):
            self._prepare(i, ticket, what)
            return
        self.rest(i)
        if what in ("write result", "write in vain"):
            self._write_result(ticket, self.spool.attempt_folder(ticket.job, ticket.starts))
        elif what == "unclaim":
            assert self.spool.unclaim(ticket) == "ready"
        elif what == "release":
            assert self.spool.release(ticket, 3) != "gone"
        elif what == "finish, lost":
            self.lost(i)
        elif what.startswith("finish"):
            kind = "cancelled" if what == "finish cancelled" else "ok"
            assert self.spool.finish(ticket, kind)

    def _prepare(self, i: int, ticket: Ticket, what: str) -> None:
        """Have the real attempt go one step: to its next start, or into its folder."""
        puppet = self._preparing[i]
        if puppet is None:
            flag = files.join(self.spool.job_folder(ticket.job), "cancel")
            aside = flag + b".aside"
            asked = files.move(flag, aside)  # it looked for one before that came
            puppet = Puppet(lambda: self._attempt(ticket), self._attempts_effect)
            if asked:
                files.rename(aside, flag)
        if what == "restart, too often":
            assert puppet.over and self.spool.release(ticket, 3) == "died"
        else:
            assert puppet.at == ("prepare" if what == "prepare" else "restart"), (puppet.at, what)
            puppet.go()
        self._preparing[i] = None if puppet.over else puppet
        if what == "restart":
            self.pilots[i] = ticket._replace(starts=ticket.starts + 1)
        if puppet.over:
            assert puppet.error is None, puppet.error
            made: Attempt = puppet.result
            assert made.ticket == self.pilots[i] and bool(made.given) == (what == "prepare")

    def _attempt(self, ticket: Ticket) -> Attempt:
        walltime, nothing = Walltime.of(None, {}), lambda: None
        guard: Any = None  # it starts nothing
        return Attempt(
            Context(self.spool, ticket.pilot, None, walltime, guard, {}, nothing), ticket
        )

    def _attempts_effect(self, name: str, args: tuple[Any, ...]) -> str | None:
        path = os.fsdecode(args[0])
        if name == "rename" and "/running/" in path:
            return "restart"
        if name == "mkdir" and re.fullmatch(r"a\d+", os.path.basename(path)):
            return None if os.path.lexists(path) else "prepare"
        return None

    def rest(self, i: int) -> None:
        """A pilot stops preparing: it goes on to something else, or is killed."""
        puppet, self._preparing[i] = self._preparing[i], None
        if puppet is not None:
            puppet.go("kill")

    def forget(self, old: tuple[Any, ...], new: tuple[Any, ...]) -> None:
        """The storage forgets that a ticket was renamed."""
        (there,) = (t for t in self.spool.tickets(new[0]) if _ticket(t) == new)
        pilot = PILOTS[old[3]] if old[0] == "running" else ""
        back = there._replace(state=old[0], starts=old[1], crashes=old[2], pilot=pilot)
        os.rename(self.spool.ticket_path(there), self.spool.ticket_path(back))

    def lost(self, i: int) -> None:
        """A pilot whose ticket was taken away can neither finish it nor give it back."""
        ticket = self.pilots[i]
        assert ticket is not None
        before = self._tickets()
        assert not self.spool.finish(ticket, "ok")
        # "ready" where its claim was forgotten, and another pilot handed the same ticket back.
        self.spool.release(ticket, 99)
        self.spool.unclaim(ticket)
        assert self._tickets() == before

    def _write_result(self, ticket: Ticket, folder: bytes) -> None:
        files.make_folders(files.join(folder, "work"))
        outputs = {}
        for k, path in enumerate(self.paths):
            data = f"new {ticket.starts}".encode()
            files.write_new(files.join(folder, "work", path.name), data)
            digest = hashlib.sha256(data).hexdigest()
            outputs[f"o{k}"] = {"name": path.name, "bytes": len(data), "sha256": digest}
        result = {"protocol": 1, "id": ticket.job, "attempt": ticket.starts, "outputs": outputs}
        result.update(kind="ok", reason="completed", rc=0, message="", pilot=ticket.pilot)
        files.replace(files.join(folder, "result.json"), files.to_json(result))

    # ---- seeing ------------------------------------------------------------------------------

    def seen(self) -> dict[str, Any]:
        """Return the real world as the model's state has it."""
        inner = self.here.dropbox / ".hpc_batch"
        jobs = journals.jobs(self.here.state / "journal")
        if jobs:
            self.job = jobs[0]
        answer = inner / f"{self.job}.answer"
        taken, asked = inner / f"{self.job}.drop", self.here.dropbox / (NAME + ".cancel")
        record = next(iter(self.here.records()), None)
        folder = self.here.workspace / "jobs" / self.job
        loaded = (folder / "description.json").exists()
        found: dict[str, Any] = {
            "drop": "taken" if taken.exists() else "here",
            "answer": "-",
            "finished": self.here.finished("thing").exists(),
            "cancel": asked.exists(),
            "moved": (inner / f"{self.job}.cancel").exists(),
            "phase": record["phase"] if record else None,
            "incoming": self._incoming(record),
            "folder": 0 if not self.job or not folder.exists() else 2 if loaded else 1,
            "flag": bool(self.job) and (folder / "cancel").exists(),
            "tickets": tuple(_ticket(t) for t in self._tickets()),
            "outputs": tuple(self._output(k) for k in range(len(self.paths))),
            "outs": self._outs(),
        }
        if found["drop"] == "here" and not (self.here.dropbox / NAME).exists():
            found["drop"] = "gone"
        if answer.exists():
            found["answer"] = "reserved" if answer.stat().st_size == ANSWER_BYTES else "filled"
        if record and record["phase"] in ("PLACING", "UNPLACING"):
            found["existed"] = tuple(t["existed"] for t in record["targets"])
        if record and record["phase"] in ("ANSWERING", "CLEANING"):
            (step,) = journals.steps(self.here.state / "journal").values()
            decided = step.papers["answer"]["reason"]
            known = {"completed": "ok", "pilot_died": "died"}
            found["decided"] = known.get(decided, decided)
        return found

    def _tickets(self) -> list[Ticket]:
        found = [*self.spool.tickets("ready"), *self.spool.tickets("running")]
        return found + self.spool.tickets("done", self.state.instance)

    def _outs(self) -> dict[int, str]:
        """Return how far each attempt of the job is."""
        folder = self.spool.job_folder(self.job) if self.job else b"/nowhere"
        return {
            int(name[1:]): "full"
            if files.exists(files.join(folder, name, "result.json"))
            else "part"
            for name in files.names(folder)
            if re.fullmatch(r"a\d+", name)
        }

    def _incoming(self, record: Any) -> tuple[int, ...]:
        roles = {}
        if self.late is not None:
            roles[self.late.id] = 3
        if self.near is not None and self.session is not None:
            roles[self.session.id] = 2
        if record and record["session"]:
            roles[record["session"]] = 1
        return tuple(sorted({roles.get(t.session, 9) for t in self.spool.tickets("incoming")}))

    def _output(self, k: int) -> Output:
        path = self.paths[k]
        text = path.read_text()[:3] if path.exists() else "-"
        beside = [n.rsplit(".", 1)[1] for n in os.listdir(path.parent) if f"-{k}." in n]
        return Output(text, any(b[0] == "a" for b in beside), "old" in beside)


def _ticket(ticket: Ticket) -> tuple[Any, ...]:
    pilot: Any = ticket.pilot if ticket.pilot in ("", NO_PILOT) else PILOTS.index(ticket.pilot)
    if ticket.state == "done":
        return ("done", ticket.starts, pilot, ticket.kind)
    common = (ticket.state, ticket.starts, ticket.crashes)
    return common if ticket.state == "ready" else (*common, pilot)


def expected(w: State_) -> dict[str, Any]:
    """Return a model's state as `RealWorld.seen` tells it."""
    found: dict[str, Any] = {
        "drop": w.drop,
        "answer": w.answer,
        "finished": w.finished == "there",
        "cancel": w.cancel == "asked",
        "moved": w.cancel == "moved",
        "phase": None if w.phase in ("-", "gone") else w.phase,
        "incoming": w.incoming,
        "folder": w.folder,
        "flag": w.flag,
        "tickets": w.tickets,
        "outputs": w.outputs,
        "outs": {n: far for n, far, _ in w.outs},
    }
    if w.phase in ("PLACING", "UNPLACING"):
        found["existed"] = w.existed
    if w.phase in ("ANSWERING", "CLEANING"):
        found["decided"] = w.decided
    return found
