"""The verb init: from a few answers to a configuration and a dropbox.

What was given with --set is not asked for; what can be found out or follows from other answers is
offered as the default; without a person, that default is taken. The text is read by the code that
passes use before it gets its name, so what init writes is right or not there.
"""

from __future__ import annotations

import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Callable

from hpc_batch import config as configuration
from hpc_batch.cli import exit_codes
from hpc_batch.cli.asking import ask, is_person
from hpc_batch.cli.output import CommandError, Output
from hpc_batch.cli.requests import Init
from hpc_batch.config.table import KEYS
from hpc_batch.errors import ConfigError
from hpc_batch.intake import move_aside
from hpc_cluster import durable, files

Settings = dict[tuple[str, str], str]

LOCAL = "local"
"""The answer for a cluster that is this machine."""


@dataclass(frozen=True)
class Question:
    """One key that is asked for, or found out."""

    section: str
    key: str
    text: str
    default: Callable[[Settings, Path], str] = lambda settings, ini: ""
    remote: bool = False
    """Not when everything runs on this machine."""
    needed: bool = False

    @property
    def place(self) -> tuple[str, str]:
        """Return section and key."""
        return self.section, self.key


def _scheduler(settings: Settings, ini: Path) -> str:
    here = settings.get(("remote", "transport")) == LOCAL
    return LOCAL if here and shutil.which("sbatch") is None else "slurm"


def _workspace(settings: Settings, ini: Path) -> str:
    here = settings.get(("remote", "transport")) == LOCAL
    return str(ini.parent / "workspace") if here else ""


def _scripts(settings: Settings, ini: Path) -> str:
    workspace = settings.get(("hpc_env", "workspace"), "")
    return str(PurePosixPath(workspace).parent / "on_hpc/scripts") if workspace else ""


QUESTIONS = (
    Question("remote", "user", "Account there (empty: as ssh would)", remote=True),
    Question("remote", "key_file", "Private key (empty: as ssh would)", remote=True),
    Question("hpc", "scheduler", "Batch system", _scheduler, needed=True),
    Question("hpc", "partition", "Partition or queue (empty: the default one)", remote=True),
    Question("hpc", "gres", "Generic resources, as in gpu:v100:1 (empty: none)", remote=True),
    Question("hpc", "walltime", "How long a pilot may run", lambda s, i: "8h", remote=True),
    Question(
        "hpc_env",
        "workspace",
        "Workspace on the cluster, seen by its nodes",
        _workspace,
        needed=True,
    ),
    Question(
        "hpc_env",
        "scripts",
        "Where `deploy` puts the cluster's side",
        _scripts,
        remote=True,
        needed=True,
    ),
    Question("hpc_env", "containers", "Folder of container images there (empty: none)"),
    Question(
        "cronjob",
        "dropbox",
        "Dropbox on this machine",
        lambda s, ini: str(ini.parent / "dropbox"),
        needed=True,
    ),
)


def init(request: Init, output: Output) -> int:
    """Write a configuration and make the dropbox; never over another one without --force."""
    ini = Path(os.path.abspath(request.config or _default_path()))
    if files.exists(str(ini)) and not request.force:
        hint = "--force moves it aside; `hpc-batch config show` shows it"
        raise CommandError(exit_codes.FAILED, "exists", f"{ini} is there already", hint)
    if not ini.parent.is_dir():
        raise CommandError(exit_codes.FAILED, "folder", f"there is no folder {ini.parent}")
    settings = dict(request.settings)
    _complete(settings, ini, with_questions=not request.non_interactive and is_person())
    text = configuration.compose(settings)
    dropbox = _written(ini, text, keep=not request.dry_run)
    if not request.dry_run:
        dropbox.mkdir(parents=True, exist_ok=True)
    steps = _next(ini, settings)
    if output.json:
        content = {"dry_run": request.dry_run, "path": str(ini), "dropbox": str(dropbox)}
        output.document("init", {**content, "next": steps})
    elif request.dry_run:
        output.stream(text)
    else:
        output.line(str(ini))
    if request.dry_run:
        output.talk("nothing was written")
    else:
        output.talk(f"wrote {ini} (mode 0600); the dropbox is {dropbox}")
        output.talk("next: " + "\n      ".join(steps))
    return exit_codes.OK


def _default_path() -> str:
    return os.environ.get("HPC_BATCH_CONFIG") or "hpc_batch.ini"


def _complete(settings: Settings, ini: Path, *, with_questions: bool) -> None:
    """Ask for what was not given, or take what it would be by default."""
    transport, host = ("remote", "transport"), ("remote", "host")
    if with_questions and transport not in settings and host not in settings:
        text = f"The cluster's login node (a name of ~/.ssh/config will do; {LOCAL}: this machine)"
        answer = ask(text, "", _checker(host, needed=True))
        settings[transport if answer == LOCAL else host] = answer
    for question in QUESTIONS:
        if question.place in settings:
            continue
        if question.remote and settings.get(transport) == LOCAL:
            continue
        value = question.default(settings, ini)
        if with_questions:
            value = ask(question.text, value, _checker(question.place, needed=question.needed))
        if value:
            settings[question.place] = value


def _checker(place: tuple[str, str], *, needed: bool) -> Callable[[str], None]:
    """Return what raises ValueError for an answer that the configuration would not take."""

    def check(text: str) -> None:
        if not text:
            if needed:
                raise ValueError("is needed")
        elif place in KEYS:
            KEYS[place].kind.parse(text)
        elif not text.startswith("/"):
            raise ValueError("must be an absolute path")

    return check


def _written(ini: Path, text: str, *, keep: bool) -> Path:
    """Write the text, read it as a configuration, and give it its name; return the dropbox.

    Raises CommandError with every problem, and when another file has taken the name meanwhile.
    """
    draft = ini.with_name(f".{ini.name}.{secrets.token_hex(4)}.new")
    files.write_new(str(draft), text.encode("utf-8", "surrogateescape"))
    try:
        try:
            dropbox = configuration.load(draft).cronjob.dropbox
        except ConfigError as error:
            problems = [problem.partition(": ")[2] or problem for problem in error.problems]
            failure = CommandError(
                exit_codes.CONFIGURATION,
                "config",
                "; ".join(problems),
                "nothing was written; give a key with --set SECTION.KEY=VALUE",
            )
            failure.problems = problems
            raise failure from None
        if keep:
            durable.sync_file(str(draft))
            move_aside(str(ini))
            files.link(str(draft), str(ini))
            durable.sync_folder(str(ini.parent))
    finally:
        files.unlink(str(draft))
    return dropbox


def _next(ini: Path, settings: Settings) -> list[str]:
    """Return the commands to run next."""
    is_local = settings.get(("remote", "transport")) == LOCAL
    words = ["doctor --deep", "cron install"] if is_local else ["deploy", "doctor", "cron install"]
    return [f"hpc-batch -c {ini} {word}" for word in words]
