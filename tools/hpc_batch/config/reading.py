"""Find and load the configuration: from a file to a Config, or to every problem at once.

Each check adds its problems to one list; only when the whole file has been read is it refused. What
is checked on disk is what would give a secret away: the mode of the configuration itself when it
holds a passphrase, and, when SSH is used, of the key and the passphrase file.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Any

from hpc_batch.config import ini, values
from hpc_batch.config.table import (
    ENVIRONMENT,
    ENVIRONMENT_DOC,
    KEYS,
    SECTIONS,
    Config,
)
from hpc_batch.errors import ConfigError, Problem, StorageError
from hpc_cluster import files

LARGEST_BYTES = 1 << 20
HIDDEN = "(hidden)"

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PACKAGE = Path(__file__).resolve().parent.parent


def find(explicit: Path | None) -> Path:
    """Return the configuration to use: the one that was named, or the first there is.

    Raises ConfigError, naming the places that were looked at, and OSError for what may pass.
    """
    named = explicit or os.environ.get("HPC_BATCH_CONFIG")
    if named:
        return Path(named)
    places = [
        Path("hpc_batch.ini"),
        Path(os.path.expanduser("~/.config/hpc_batch/hpc_batch.ini")),
        Path("/etc/hpc_batch/hpc_batch.ini"),
    ]
    for place in places:
        if files.mode_of(str(place)):
            return place
    looked = ", ".join(str(place.absolute()) for place in places)
    raise ConfigError(
        "there is no configuration: name one with -c FILE or $HPC_BATCH_CONFIG; "
        f"looked for {looked}"
    )


def load(path: Path) -> Config:
    """Read a configuration.

    Raises ConfigError with every problem of the file, and StorageError where it cannot be read now.
    """
    path = Path(os.path.abspath(path))
    text, mode = _read(path)
    entries, problems = ini.parse(text)
    draft = _Draft(problems)
    for entry in entries:
        draft.take(entry)
    if draft.env_or_key_is_set("remote", "passphrase") and mode & 0o077:
        problems.append(Problem(None, _loose("it holds a passphrase", path)))
    config = draft.finished(path)
    if problems:
        ordered = sorted(problems, key=lambda p: p.line or 0)
        raise ConfigError(*[_sentence(path, problem) for problem in ordered])
    return config


def _read(path: Path) -> tuple[str, int]:
    """Return the text and the mode of a configuration, both of the same opened file."""
    try:
        # O_NONBLOCK: a FIFO under that name is refused, not waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            mode = os.fstat(descriptor).st_mode
            if not stat.S_ISREG(mode):
                raise ConfigError(f"{path}: is not a regular file")
            data = file.read(LARGEST_BYTES + 1)
    except OSError as error:
        kind = StorageError if error.errno in files.PASSING else ConfigError
        raise kind(f"{path}: {(error.strerror or str(error)).lower()}") from None
    if len(data) > LARGEST_BYTES:
        raise ConfigError(f"{path}: is larger than 1 MiB; that is no configuration")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: is not UTF-8 (byte {error.start})") from None
    return text.replace("\r\n", "\n").replace("\r", "\n"), mode


def _sentence(path: Path, problem: Problem) -> str:
    return f"{path}:{problem.line}: {problem.text}" if problem.line else f"{path}: {problem.text}"


def _loose(why: str, path: Path) -> str:
    import shlex

    return (
        f"others can read {path}, and {why}; make it yours alone: "
        f"chmod 600 {shlex.quote(str(path))}"
    )


class _Draft:
    """A configuration while it is read: what was found so far, and what is wrong with it."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        self.values: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
        self.env: dict[str, str] = {}
        self.lines: dict[tuple[str, str], int] = {}
        self.written: dict[tuple[str, str], str] = {}

    def _wrong(self, line: int | None, text: str) -> None:
        self.problems.append(Problem(line, text))

    def take(self, entry: ini.Entry) -> None:
        """Take one line of the file: a header, or a key of a section that is known."""
        known = [*SECTIONS, ENVIRONMENT]
        if entry.section not in known:
            if not entry.key:
                near = values.closest(entry.section, known)
                self._wrong(entry.line, f"unknown section [{entry.section}]{near}")
            return
        name = entry.key if entry.section == ENVIRONMENT else entry.key.lower()
        first = self.lines.setdefault((entry.section, name), entry.line)
        if first != entry.line:
            what = f"[{entry.section}] {name}".rstrip()
            self._wrong(entry.line, f"{what} stands there twice, first in line {first}")
        elif entry.section == ENVIRONMENT and name:
            self._take_name(name, entry)
        elif name and entry.value:
            self._take_key(name, entry)
        elif name and (entry.section, name) not in KEYS:
            self._unknown(name, entry)

    def _take_name(self, name: str, entry: ini.Entry) -> None:
        if not _NAME.fullmatch(name):
            self._wrong(
                entry.line, f"[{ENVIRONMENT}] {name}: a name holds only letters, digits and '_'"
            )
            return
        try:
            self.env[name] = values.TEXT.parse(entry.value)
        except ValueError as error:
            self._wrong(entry.line, f"[{ENVIRONMENT}] {name} {error}")
        self.written[ENVIRONMENT, name] = entry.value

    def _take_key(self, name: str, entry: ini.Entry) -> None:
        key = KEYS.get((entry.section, name))
        if key is None:
            self._unknown(name, entry)
            return
        self.written[entry.section, name] = HIDDEN if key.secret else entry.value
        try:
            self.values[entry.section][name] = key.kind.parse(entry.value)
        except ValueError as error:
            shown = "" if key.secret else f" = {_shown(entry.value)}"
            self._wrong(entry.line, f"[{entry.section}] {name}{shown} {error}")

    def _unknown(self, name: str, entry: ini.Entry) -> None:
        """Say where an unknown key may belong: a near name, or the same name elsewhere."""
        near = values.closest(name, [k for s, k in KEYS if s == entry.section])
        homes = [s for s, k in KEYS if k == name]
        if not near and homes:
            near = f"; it belongs to [{homes[0]}]"
        self._wrong(entry.line, f"[{entry.section}] has no key '{name}'{near}")

    def env_or_key_is_set(self, section: str, name: str) -> bool:
        """Tell whether a key has a value in the file, right or wrong."""
        return bool(self.written.get((section, name)))

    def finished(self, path: Path) -> Config:
        """Return the Config, with defaults; whatever is missing or contradicts is a problem."""
        is_local = self.values["remote"].get("transport") == "local"
        self._require(is_local)
        self._check_secrets(is_local)
        self._check_paths()
        cronjob = {"dropbox": Path("/"), "templates": _templates(), **self.values["cronjob"]}
        dropbox = cronjob["dropbox"]
        cronjob.setdefault("state", Path(f"{dropbox}.state"))
        built = {
            section: shape(**(cronjob if section == "cronjob" else self.values[section]))
            for section, shape in SECTIONS.items()
        }
        return Config(path=path, env=self.env, written=self.written, **built)

    def _require(self, is_local: bool) -> None:
        needed = {(key.section, key.name): key.required for key in KEYS.values() if key.required}
        needed.update(
            {(ENVIRONMENT, name): when for name, (_, when, _) in ENVIRONMENT_DOC.items() if when}
        )
        for (section, name), when in needed.items():
            if self.env_or_key_is_set(section, name) or (is_local and when != "always"):
                continue
            line = self.lines.get((section, name)) or self.lines.get((section, ""))
            self._wrong(line, f"[{section}] {name} is missing{self._misspelt(section, name)}")

    def _misspelt(self, section: str, name: str) -> str:
        """Return a hint where the free section holds a name that is nearly the missing one."""
        free = [k for k in self.env if k not in ENVIRONMENT_DOC and section == ENVIRONMENT]
        from difflib import get_close_matches

        near = get_close_matches(name, free, n=1, cutoff=0.8)
        return f"; was '{near[0]}' meant to be it?" if near else ""

    def _check_secrets(self, is_local: bool) -> None:
        remote = self.values["remote"]
        if "passphrase" in remote and "passphrase_file" in remote:
            self._wrong(
                self.lines["remote", "passphrase_file"],
                "[remote] passphrase and passphrase_file are both given; keep one",
            )
        for name in () if is_local else ("key_file", "passphrase_file"):
            if name in remote:
                self._check_mode(name, remote[name])

    def _check_mode(self, name: str, path: Path) -> None:
        line = self.lines["remote", name]
        try:
            mode = path.stat().st_mode
        except OSError:
            # Missing: connecting says so. Not ours to see: users of the dropbox read this file too.
            return
        if not stat.S_ISREG(mode):
            self._wrong(line, f"[remote] {name} = {path} is not a regular file")
        elif mode & 0o077:
            self._wrong(line, f"[remote] {name}: {_loose('it is a secret', path)}")

    def _check_paths(self) -> None:
        for name in ("workspace", "scripts"):
            value = self.env.get(name)
            if value and not value.startswith("/"):
                line = self.lines[ENVIRONMENT, name]
                self._wrong(
                    line, f"[{ENVIRONMENT}] {name} = {_shown(value)} must be an absolute path"
                )
        cronjob = self.values["cronjob"]
        dropbox, state = cronjob.get("dropbox"), cronjob.get("state")
        if dropbox is not None and not dropbox.name:
            self._wrong(self.lines["cronjob", "dropbox"], "[cronjob] dropbox must not be '/'")
        elif dropbox and state and _overlap(dropbox, state):
            self._wrong(
                self.lines["cronjob", "state"],
                "[cronjob] state and dropbox must not lie in one another: users write to the "
                "dropbox, and the state is private",
            )


def _overlap(one: Path, other: Path) -> bool:
    a, b = (Path(os.path.normpath(p)) for p in (one, other))
    return a == b or a in b.parents or b in a.parents


def _templates() -> Path:
    """Return the templates of the checkout, or those that were installed with the package."""
    checkout = _PACKAGE.parent.parent
    if (checkout / "on_hpc").is_dir() and (checkout / "templates").is_dir():
        return checkout / "templates"
    return _PACKAGE / "templates"


def _shown(text: str) -> str:
    """Return a value as a message quotes it: one line, not too long."""
    return repr(text if len(text) <= 60 else text[:57] + "...")
