"""A soak from its beginning to quiet: service hosts, users, cron and the nemesis in one folder.

FOLDER/history        what everybody did and saw
FOLDER/journal        what the jobs wrote
FOLDER/hosts/NAME/    dropbox, state, in, out of each service host, and its configuration
FOLDER/workspace      the cluster's
FOLDER/on_hpc         the cluster's side, with faster clocks
FOLDER/facts.json     the settings that the checker must know
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from integration import sshd
from preload.library import ERRORS, Act, Call, Judge, Role, built
from soak.clocks import hasten
from soak.cron import Cron
from soak.history import History
from soak.kinds import TEMPLATES
from soak.nemesis import Nemesis
from soak.processes import Processes, send_here
from soak.user import User
from world import World

LINGERS_S = (0, 8, 0)
"""How long passes of the first, second, … service host linger."""

REST_S = 40.0
"""After so long without an answer the nemesis rests for as long."""

STUCK_S = 300.0
"""No answer for so long: something is stuck."""


@dataclass(frozen=True)
class Settings:
    """How large, how evil."""

    jobs: int = 10_000
    hosts: int = 3
    pilots: int = 20
    seed: int = 1
    window: int = 600
    """So many jobs of a service host are in flight at most."""
    every_s: float = 1.0
    """Between two deeds of the nemesis, on average."""
    deeds: int = 1_000_000
    """So many at most."""
    period_s: float = 2.0
    """Between two passes."""
    lease_s: float = 60.0
    full: bool = False
    """The disks of the service hosts are filled now and then; they must be mounted."""
    calls: bool = False
    """System calls go wrong now and then."""


@dataclass(frozen=True)
class Result:
    """What a soak cost."""

    seconds: float
    quiet_s: float
    """From the nemesis's last deed until all was answered and nothing in flight."""
    deeds: Counter[str]
    passes: int
    rests: int
    """So often the nemesis had to rest, or nothing went on."""
    trouble: str
    """Why it was given up; empty where it came to its end."""


@dataclass(frozen=True)
class Site:
    """The cluster's side of a soak, for service hosts."""

    journal: str
    """As jobs see it."""
    keys: list[dict[str, Any]]
    """Of each service host's configuration."""
    machines: list[Processes]
    prepare: Callable[[Nemesis], None] = lambda nemesis: None
    """Adds deeds."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Of passes, beside their own."""


@contextlib.contextmanager
def here(folder: Path, settings: Settings) -> Iterator[Site]:
    """Let pilots run on this machine; service hosts reach it directly and over SSH, in turn."""
    scripts = hasten(folder / "on_hpc", settings.lease_s)
    with contextlib.ExitStack() as stack:
        environment, prepare = {}, Site.prepare
        if settings.calls:
            judge = Judge(built(folder), folder / "judge", folder)
            environment = {k: judge.environment()[k] for k in ("LD_PRELOAD", "JUDGE")}
            prepare = spoil(judge)
        remotes: list[dict[str, Any]] = [{"transport": "local"}]
        machine = Processes(Path("/proc"), (str(folder),), send_here)
        if not sshd.MISSING and settings.hosts > 1:
            words = " ".join(f"{k}={v}" for k, v in environment.items())
            options = [f"SetEnv {words}"] if words else []
            server = stack.enter_context(sshd.running(folder / "sshd", options))
            common = {"host": "127.0.0.1", "port": server.port, "user": server.user}
            common.update(key_file=server.key, known_hosts=server.known_hosts)
            remotes += [{"transport": name, **common} for name in ("openssh", "fabric")]
            login = r"sshd(-session)?: "
            machine = Processes(Path("/proc"), (str(folder),), send_here, login, server.pid)
        keys = [
            {
                "remote": remotes[number % len(remotes)],
                "hpc": {"scheduler": "local"},
                "pilot": {"max": settings.pilots, "linger": 5, "slots": 1 + number % 2},
                "cronjob": {"linger": LINGERS_S[number % len(LINGERS_S)]},
                "hpc_env": {"workspace": folder / "workspace", "scripts": scripts},
            }
            for number in range(settings.hosts)
        ]
        yield Site(str(folder / "journal"), keys, [machine], prepare, environment)


def spoil(judge: Judge) -> Callable[[Nemesis], None]:
    """Return what teaches the nemesis to let one system call of some program go wrong."""

    def deed(nemesis: Nemesis) -> bool:
        chance = nemesis.chance
        role = chance.choice((Role.SUBMITTER, Role.SESSION, Role.LOCAL, Role.RUNNER))
        call = chance.choice(list(ERRORS))
        acts = [Act.FAIL, Act.FAIL, Act.DONE_BUT_ERROR]
        acts += [Act.SHORT] if call in (Call.READ, Call.WRITE) else []
        acts += [Act.HIDE] * 3 if call == Call.LIST else []
        acts += [Act.KILL_BEFORE, Act.KILL_AFTER] if role in (Role.SUBMITTER, Role.SESSION) else []
        act, error = chance.choice(acts), chance.choice(ERRORS[call])
        at = chance.randint(1, 60)
        words = f"{role.name} {call.name} {act.name} {error} at {at}"
        nemesis.history.note("call", before=judge.hit, armed=words)
        judge.arm(role, call, act, at, error)
        return True

    def teach(nemesis: Nemesis) -> None:
        nemesis.deeds["let a system call go wrong"] = (12, lambda: deed(nemesis))
        nemesis.at_end(judge.disarm)

    return teach


def run(folder: Path, settings: Settings, site: Site, say: Callable[[str], None]) -> Result:
    """Soak below a folder; `say` hears how it goes."""
    begin = time.monotonic()
    (folder / "facts.json").write_text(json.dumps(asdict(settings)))
    history = History(folder / "history")
    hosts = [make_host(folder / "hosts" / f"host{n}", keys) for n, keys in enumerate(site.keys)]
    share, more = divmod(settings.jobs, len(hosts))
    users = [
        User(host, history, share + (n < more), settings.window, site.journal, settings.seed)
        for n, host in enumerate(hosts)
    ]
    crons = [
        Cron(host, history, settings.period_s, settings.seed, site.environment) for host in hosts
    ]
    nemesis = Nemesis(
        site.machines,
        history,
        settings.every_s,
        settings.lease_s,
        settings.deeds,
        settings.seed,
    )
    site.prepare(nemesis)
    if settings.full:
        for host in hosts:
            folders = host.dropbox.parent
            nemesis.deeds[f"fill the disk of {host.root.name}"] = (
                0.2,
                lambda folders=folders: nemesis.fill(folders),
            )
    for thread in (*users, *crons, nemesis):
        thread.start()
    trouble = _watch(settings, users, nemesis, history, say)
    healed = time.monotonic()
    nemesis.over.set()
    nemesis.join()
    if not trouble:
        trouble = _settle(hosts, users)
    quiet = time.monotonic()
    for cron in crons:
        cron.over.set()
    for cron in crons:
        cron.join()
        cron.sweep()
    history.note("quiet" if not trouble else "stuck", trouble=trouble)
    for machine in site.machines:
        for process in machine.seen():
            if process.what in ("runner", "job", "guard"):
                machine.send(process.pid, 9)
    history.close()
    passes = sum(cron.passes for cron in crons)
    return Result(quiet - begin, quiet - healed, nemesis.done, passes, nemesis.rests, trouble)


def make_host(root: Path, keys: dict[str, Any]) -> World:
    """Make a service host with the templates of a soak."""
    host = World(root, **keys)
    for name, text in TEMPLATES.items():
        host.template(name, text)
    return host


def _watch(
    settings: Settings,
    users: list[User],
    nemesis: Nemesis,
    history: History,
    say: Callable[[str], None],
) -> str:
    """Wait until hardly anything is left to do; return what is wrong, if anything is."""
    moved, before, told, most = time.monotonic(), -1, 0.0, 0
    rest_at = moved + REST_S
    while True:
        answered = sum(user.answered for user in users)
        for thread in (*users, nemesis):
            if thread.failure is not None:
                return f"{thread.name}: {thread.failure!r}"
        alive = len(nemesis.alive())
        if alive > most:
            most = alive
            history.note("pilots", alive=alive)
        if answered != before:
            moved, before = time.monotonic(), answered
            rest_at = moved + REST_S
        elif time.monotonic() > moved + STUCK_S:
            return f"no answer for {STUCK_S:.0f} s"
        elif time.monotonic() > rest_at:
            rest_at = time.monotonic() + 2 * REST_S
            nemesis.rest(REST_S)
        if answered >= settings.jobs - max(1, settings.jobs // 100):
            return ""
        if time.monotonic() > told + 10:
            told = time.monotonic()
            say(f"{answered} of {settings.jobs} answered, {sum(nemesis.done.values())} deeds")
        time.sleep(0.5)


def _settle(hosts: list[World], users: list[User]) -> str:
    """Wait until every job is answered and nothing is in flight."""
    end = time.monotonic() + STUCK_S
    while any(user.is_alive() for user in users) or any(h.records() for h in hosts):
        for user in users:
            if user.failure is not None:
                return f"{user.name}: {user.failure!r}"
        if time.monotonic() > end:
            return f"not quiet after {STUCK_S:.0f} s without faults"
        time.sleep(0.5)
    return ""


def mount(folder: Path, megabytes: int, names: list[str]) -> None:
    """Give service hosts a small disk each; in a mount namespace of our own."""
    for name in names:
        place = folder / "hosts" / name
        place.mkdir(parents=True)
        words = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=755", "tmpfs", str(place)]
        subprocess.run(words, check=True)
