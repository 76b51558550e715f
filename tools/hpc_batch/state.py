"""The state folder and the dropbox's own folder: who we are, and that nobody else is.

`state/` is private and local; only the pass that holds its lock writes there. `dropbox/.hpc_batch/`
holds what is renamed into or out of the dropbox. Both name the same instance and count the passes,
state first: equal, or state one ahead (a pass was killed between the two), is normal. Anything else
is a state or a dropbox restored from a backup, or cloned to another machine, and working on would
lose or repeat jobs; it is refused until the operator says `hpc-batch resume --restored`.

    state/                              dropbox/.hpc_batch/
      lock  machine  trouble.json         instance  probe
      journal  history.jsonl              J.drop  J.answer  J.cancel
      status.json  portions.json  paused  log
      failed.json  swept.json  ahead.json
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from pathlib import Path
from typing import Any, Container, Iterable, Iterator

import filelock

from hpc_batch.ahead import Ahead
from hpc_batch.config import Config, network_file_system
from hpc_batch.elapsed import Elapsed
from hpc_batch.errors import ConfigError, StorageError
from hpc_batch.journal import Journal
from hpc_batch.record import Record, now, seconds_since
from hpc_batch.records import Records
from hpc_batch.trash import Trash
from hpc_cluster import PROTOCOL, durable, files

OURS = re.compile(r"[0-9a-f]{8}-[0-9a-f]{11}-[0-9a-f]{16}\.(drop|answer|cancel)\Z")
"""Names in `dropbox/.hpc_batch` that belong to a job."""

INSTANCE_BYTES = 128
"""Size of `instance`: one sector at most, overwritten in place, which needs no free space."""

DRAFTS = frozenset(
    f"{name}.new"
    for name in ("machine", "journal", "trouble.json", "swept.json", "ahead.json", "portions.json")
)
"""Names of what only a pass writes, before it has the name that it is read under."""

RESTORE = "hpc-batch resume --restored"


class Busy(Exception):
    """Another pass holds the lock."""


class State:
    """One service host's private folder, held by one pass. Use `hold`."""

    def __init__(self, config: Config, lock_descriptors: tuple[int, ...] = ()) -> None:
        self.folder = config.cronjob.state
        self.dropbox = config.cronjob.dropbox
        self.inner = config.cronjob.dropbox / ".hpc_batch"
        self._inner = str(self.inner)
        self.trash = Trash(f"{self._inner}/trash")
        self.instance = ""
        self.elapsed = Elapsed(0.0)
        """The time that passes have seen go by; from `begin` on."""
        self.ahead = Ahead(None, self.elapsed)
        """What is known of drops from the future; from `begin` on."""
        self.lock_descriptors = lock_descriptors
        """Given to transfer children: a lock is free only when they are gone too."""

    def path(self, name: str) -> Path:
        """Return the path of a file in the state folder."""
        return self.folder / name

    def of_job(self, job: str, kind: str) -> str:
        """Return the path of J.drop, J.answer, J.cancel or J.submitted."""
        return f"{self._inner}/{job}.{kind}"

    def journal(self) -> Journal:
        """Return the journal of the records, not yet read."""
        return Journal(str(self.path("journal")))

    def read(self, name: str) -> Any:
        """Return a JSON document of the state folder; None when it is missing or damaged."""
        try:
            return files.twice(files.read_json, str(self.path(name)))
        except (FileNotFoundError, ValueError):
            return None

    def write(self, name: str, value: Any) -> None:
        """Replace a JSON document of the state folder durably."""
        files.replace(str(self.path(name)), files.to_json(value))

    def show(self, name: str, value: Any) -> None:
        """Replace a JSON document of the state folder that a power cut may take away."""
        files.show(str(self.path(name)), files.to_json(value))

    def clock(self) -> float:
        """Return the dropbox's own clock: ages of drops are measured against it."""
        return files.server_now(str(self.inner), "probe")

    def cancelled(self) -> frozenset[str]:
        """Return the jobs whose cancellation was asked for."""
        names = files.names(str(self.inner))
        return frozenset(n[: -len(".cancel")] for n in names if n.endswith(".cancel"))

    def paused(self) -> Any:
        """Return what `hpc-batch pause` left: until, reason, since; None when nothing is paused."""
        value = self.read("paused")
        if value and value.get("until") and seconds_since(value["until"]) >= 0:
            return None
        return value

    def end(self) -> None:
        """Keep for the next pass what this one has seen."""
        if self.ahead.is_news:
            self.show("ahead.json", self.ahead.seen)

    def begin(self) -> None:
        """Check that state and dropbox belong together, and count this pass.

        Raises ConfigError when one of them was restored, cloned or exchanged.
        """
        mine, theirs = self.read("machine"), self._instance()
        if mine is None or theirs is None:
            mine = theirs = self._found(mine, theirs)
        self._check(mine, theirs)
        self.instance = mine["instance"]
        self.elapsed = Elapsed.since(mine.get("elapsed"))
        self.ahead = Ahead(self.read("ahead.json"), self.elapsed)
        # One more than the dropbox's: a pass that could not write there must not count twice.
        self._count(theirs["generation"] + 1)
        self._tidy()
        self.trash.look()

    def _tidy(self) -> None:
        """Remove what an earlier pass wrote and could not rename; what stays does no harm."""
        with contextlib.suppress(OSError):
            for name in DRAFTS.intersection(files.names(str(self.folder))):
                files.unlink(str(self.path(name)))

    def join(self) -> bool:
        """Check the same without counting a pass; False: there was none yet, or one is lost.

        Raises ConfigError.
        """
        mine, theirs = self.read("machine"), self._instance()
        if mine is None or theirs is None:
            return False
        self._check(mine, theirs)
        self.instance = mine["instance"]
        return True

    def known_jobs(self) -> list[str]:
        """Return every job that may have no answer yet, whatever became of its record.

        Those are the jobs with a record, and those with a file in `.hpc_batch`. Raises Damaged.
        """
        return sorted(self._taken().union(self.journal().read().jobs()))

    def lost(self, known: Container[str]) -> list[str]:
        """Return the jobs that have their drop and their reserved answer here, and no record.

        A record is made before them, and forgotten after them; the answer is out before the drop
        goes.
        """
        return [job for job in sorted(self._taken()) if job not in known and self._is_taken(job)]

    def answered(self, records: Iterable[Record]) -> list[Record]:
        """Return the jobs whose answer is out, though their records are of a time before.

        Their reserved answer has another name since: the journal is an older one, or its end is
        damaged.
        """
        early = [r for r in records if r.phase not in ("INTENT", "ANSWERING", "CLEANING")]
        there = set(files.names(str(self.inner))) if early else set()
        if "instance" not in there:
            return []
        return [
            r
            for r in early
            if f"{r.id}.answer" not in there and not files.exists(self.of_job(r.id, "answer"))
        ]

    def _taken(self) -> set[str]:
        return {n.partition(".")[0] for n in files.names(str(self.inner)) if OURS.match(n)}

    def _is_taken(self, job: str) -> bool:
        return all(files.exists(self.of_job(job, kind)) for kind in ("drop", "answer"))

    def _check(self, mine: Any, theirs: Any) -> None:
        if mine["instance"] != theirs["instance"]:
            raise ConfigError(
                f"state {self.folder} and dropbox {self.dropbox} do not belong together: "
                f"set [cronjob] state to this dropbox's own folder, or run `{RESTORE}`"
            )
        if mine["machine"] != machine_id():
            raise ConfigError(
                f"state {self.folder} was made on another machine; if that one no longer runs "
                f"passes, run `{RESTORE}`"
            )
        if mine["generation"] - theirs["generation"] not in (0, 1):
            raise ConfigError(
                f"state {self.folder} (pass {mine['generation']}) and dropbox {self.dropbox} (pass "
                f"{theirs['generation']}) are of different times: one of them was restored from a "
                f"backup. Run `{RESTORE}` to bring them together"
            )

    def adopt(self) -> None:
        """Make state and dropbox one again after a restore, on this machine."""
        mine, theirs = self.read("machine"), self._instance()
        self._make_journal()
        known = [k for k in (mine, theirs) if k is not None]
        self.instance = known[0]["instance"] if known else os.urandom(4).hex()
        self._count(max([k["generation"] for k in known], default=0) + 2)

    def _count(self, generation: int) -> None:
        value = {"protocol": PROTOCOL, "instance": self.instance, "generation": generation}
        kept = {"machine": machine_id(), "elapsed": self.elapsed.kept()}
        self.write("machine", {**value, **kept})
        text = files.to_json(value).rstrip().ljust(INSTANCE_BYTES - 1) + b"\n"
        path = str(self.inner / "instance")
        if files.exists(path):
            files.overwrite(path, text)
        else:
            files.replace(path, text)

    def _make_journal(self) -> None:
        """Make an empty journal where none is; what stands in its place is moved aside."""
        path = str(self.path("journal"))
        there = files.look(path)
        if there is not None and not stat.S_ISREG(there.st_mode):
            files.rename(path, f"{path}.{now()}")
        files.append(path, b"")

    def _instance(self) -> Any:
        try:
            return files.twice(files.read_json, str(self.inner / "instance"))
        except (FileNotFoundError, ValueError):
            return None

    def _found(self, mine: Any, theirs: Any) -> Any:
        """First start: make both anew, unless one of them already has jobs."""
        orphans = [n for n in files.names(str(self.inner)) if OURS.match(n)]
        if theirs is not None or orphans:
            raise ConfigError(
                f"dropbox {self.dropbox} holds jobs in flight, but state {self.folder} knows "
                f"nothing of them: restore the state folder, or run `{RESTORE}`"
            )
        self._make_journal()
        if mine is not None and self.journal().read().jobs():
            raise ConfigError(
                f"state {self.folder} holds jobs, but dropbox {self.dropbox} was never used with "
                f"it: set [cronjob] dropbox back, or run `{RESTORE}`"
            )
        # Their own names must be durable before a drop is renamed into one of them.
        durable.sync_folders([str(self.folder.parent), str(self.dropbox)])
        self.instance = os.urandom(4).hex()
        self._count(0)
        return {"instance": self.instance, "machine": machine_id(), "generation": 0}


def machine_id() -> str:
    """Return what tells this machine from others. Raises OSError where that may pass.

    Another answer than before would stop all passes.
    """
    text = b""
    try:
        text = files.read_bytes(files.real_path("/etc/machine-id")).strip()
    except OSError as error:
        if error.errno in files.PASSING:
            raise
    return text.decode("ascii", "replace") or os.uname().nodename


@contextlib.contextmanager
def hold(config: Config, patience_s: float = 0.0) -> Iterator[State]:
    """Make what is missing, take the locks, and give the state folder to one pass.

    Raises Busy when another pass runs, and does so for `patience_s` seconds more; ConfigError when
    a folder cannot be used; StorageError when one cannot be used just now.
    """
    folder, dropbox = config.cronjob.state, config.cronjob.dropbox
    _check_folders(folder, dropbox)
    with contextlib.ExitStack() as stack:
        paths = [folder / "lock"]
        if config.cronjob.lockfile is not None:
            paths.append(config.cronjob.lockfile)
        for path in paths:
            lock = filelock.FileLock(path, timeout=patience_s, fallback_to_soft=False, mode=0o600)
            try:
                stack.enter_context(lock)
            except filelock.Timeout:
                raise Busy(str(path)) from None
            except OSError as error:
                text = f"cannot lock {path}: {error.strerror}"
                if error.errno in files.PASSING:
                    raise StorageError(f"{text}; tried again") from None
                raise ConfigError(text) from None
        yield State(config, _descriptors(paths))


def _check_folders(folder: Path, dropbox: Path) -> None:
    if not files.is_folder(str(dropbox)):
        raise ConfigError(f"dropbox {dropbox} is no folder: mkdir -p {dropbox}")
    if not files.permits(str(dropbox), os.W_OK | os.X_OK | os.R_OK):
        raise ConfigError(f"dropbox {dropbox} must be readable and writable to this account")
    kind = network_file_system(folder if files.mode_of(str(folder)) else folder.parent)
    if kind is not None:
        raise ConfigError(
            f"state {folder} lies on a network file system ({kind}), where locks do not hold: "
            "set [cronjob] state to a folder on a local disk"
        )
    try:
        files.make_folder(str(folder))
        files.make_folder(str(dropbox / ".hpc_batch"))
    except OSError as error:
        text = f"cannot make {error.filename}: {error.strerror}"
        if error.errno in files.PASSING:
            raise StorageError(f"{text}; tried again") from None
        raise ConfigError(text) from None
    for private in (folder, dropbox / ".hpc_batch"):
        status = private.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            raise ConfigError(f"{private} must be a folder of the account that runs the passes")
        if status.st_mode & 0o077:
            raise ConfigError(f"{private} must be private: chmod 700 {private}")


def _descriptors(paths: list[Path]) -> tuple[int, ...]:
    """Return the open descriptors of the lock files, which filelock keeps to itself."""
    wanted = {os.path.realpath(p) for p in paths}
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.path.realpath(f"/proc/self/fd/{name}") in wanted:
                found.append(int(name))
    return tuple(found)


def is_at_home(record: Record, config: Config) -> bool:
    """Tell whether a job belongs to the configured dropbox, host and workspace."""
    mine = (str(config.cronjob.dropbox), config.remote.host or "", config.env["workspace"])
    return (record.dropbox, record.host, record.workspace) == mine


def check_home(records: Records, config: Config) -> None:
    """Refuse to work on jobs that belong to another dropbox, host or workspace.

    Raises ConfigError.
    """
    homes: dict[tuple[str, str, str], int] = {}
    for record in records:
        if not is_at_home(record, config):
            home = (record.dropbox, record.host, record.workspace)
            homes[home] = homes.get(home, 0) + 1
    problems = [
        f"{count} jobs are still on {host or 'this machine'}:{workspace}, from dropbox {dropbox}; "
        "set the configuration back until they are answered"
        for (dropbox, host, workspace), count in sorted(homes.items())
    ]
    if problems:
        raise ConfigError(*problems)
