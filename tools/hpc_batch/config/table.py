"""Config and its sections: every key of the `.ini` file, once.

A field is a key: its name, kind, default, meaning and first version stand together, and parsing,
defaults, `sample()` and `reference()` all read them from here. Where the default depends on other
keys, `worked_out` is the sentence that says how; `reading` works it out.
"""

# ruff: noqa: RUF009  (`_key` only declares a field, as dataclasses.field does)

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Mapping

from hpc_batch.config import values
from hpc_batch.config.values import Kind


@dataclass(frozen=True)
class Key:
    """What is to be known about one key of the file."""

    section: str
    name: str
    kind: Kind
    default: str
    """As it would be written in the file; empty: none."""
    doc: str
    """One sentence or two, for the sample and the reference page."""
    since: str
    """The first version that knows this key."""
    example: str
    """What the sample shows where there is no default."""
    worked_out: str
    """How the default follows from other keys; empty: it does not."""
    required: str
    """When the key must be given; empty: never."""
    secret: bool
    """Never shown, and the file that holds it must be its owner's alone."""


def _key(kind: Kind, doc: str, **more: Any) -> Any:
    """Declare a key as a dataclass field whose default is the parsed default."""
    facts: dict[str, Any] = {
        "kind": kind,
        "doc": doc,
        "default": "",
        "since": "0.1.0",
        "example": "",
    }
    facts.update({"worked_out": "", "required": "", "secret": False}, **more)
    shape: dict[str, Any] = {"metadata": facts, "repr": not facts["secret"]}
    if facts["default"] or kind in (values.LINES, values.WORDS, values.ARGUMENTS, values.PATHS):
        shape["default"] = kind.parse(facts["default"])
    elif not (facts["worked_out"] or facts["required"] == "always"):
        shape["default"] = None
    return field(**shape)


@dataclass(frozen=True)
class Remote:
    """How to reach the cluster."""

    host: str | None = _key(
        values.WORD,
        "The cluster's login node: a name, an address, or an alias of ~/.ssh/config.",
        example="login.cluster.example.org",
        required="unless transport is local",
    )
    port: int | None = _key(
        values.count(1, 65535),
        "The port of its SSH server; without it, SSH's own default.",
        example="22",
    )
    user: str | None = _key(values.WORD, "The account there.", example="your_user")
    key_file: Path | None = _key(
        values.PATH,
        "The private key. It must be readable by its owner alone.",
        example="/absolute/path/to/id_rsa",
    )
    passphrase: str | None = _key(
        values.TEXT,
        "The key's passphrase, exactly as it is: nothing is interpolated or unquoted. The "
        "configuration must then be readable by its owner alone.",
        example="pa$5phrase",
        secret=True,
    )
    passphrase_file: Path | None = _key(
        values.PATH,
        "A file whose first line is the passphrase, readable by its owner alone; instead of "
        "passphrase.",
        example="/absolute/path/to/passphrase",
    )
    transport: str = _key(
        values.choice("fabric", "openssh", "local"),
        "How to get there: fabric (paramiko), openssh (the ssh program: 2FA, certificates, "
        "ProxyJump), or local: everything runs on this machine.",
        default="fabric",
    )
    known_hosts: Path | None = _key(
        values.PATH,
        "The file of known host keys, instead of ~/.ssh/known_hosts.",
        example="/absolute/path/to/known_hosts",
    )
    host_key: str | None = _key(
        values.FINGERPRINT,
        "The pinned fingerprint of the host's key; then no other key is accepted.",
        example="SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU",
    )
    proxy_jump: str | None = _key(
        values.WORD, "A host to jump through, as in ssh -J.", example="gate.example.org"
    )
    python: str = _key(
        values.WORD, "The Python (3.6 or later) of the cluster's login node.", default="python3"
    )
    prologue: str = _key(
        values.LINES,
        "Lines of shell to run before the session on the login node, for instance to find sbatch.",
        example="export PATH=/opt/slurm/bin:$PATH",
    )
    connect_timeout: int = _key(
        values.duration(1), "How long to wait for a connection.", default="30"
    )


@dataclass(frozen=True)
class Hpc:
    """What to ask the batch system for, for each pilot."""

    scheduler: str = _key(
        values.choice("slurm", "pbs", "torque", "sge", "lsf", "flux", "local"),
        "The batch system: pbs is PBS Pro or OpenPBS, torque also Slurm's qsub wrappers, sge any "
        "Grid Engine; local starts the pilot as a background process.",
        default="slurm",
    )
    walltime: int = _key(
        values.duration(60, bare_unit_s=60),
        "How long a pilot may run. A bare number counts minutes.",
        default="8h",
    )
    gres: str | None = _key(
        values.WORD,
        "Generic resources of a pilot, as in Slurm's --gres. Every batch system understands gpu:N; "
        "anything else is passed on in its own words.",
        example="gpu:v100:1",
    )
    partition: str | None = _key(values.WORD, "The partition or queue.", example="dl")
    gpuram: int | None = _key(
        values.GIGABYTES,
        "The least GPU memory in GB; the pilot's self test checks it where nvidia-smi is there.",
        example="32",
    )
    memory: int | None = _key(values.GIGABYTES, "The memory of a pilot in GB.", example="32")
    account: str | None = _key(values.WORD, "The account to charge.", example="your_project")
    qos: str | None = _key(values.WORD, "The quality of service.", example="normal")
    options: tuple[str, ...] = _key(
        values.ARGUMENTS,
        "Further arguments of the submit command, passed on as they are.",
        example="--constraint=a100 --exclude=n17",
    )
    prologue: str = _key(
        values.LINES,
        "Lines of shell to run on the node before the pilot.",
        example="module load apptainer",
    )
    email: str | None = _key(
        values.WORD, "Whom the batch system tells about pilots.", example="you@example.org"
    )


@dataclass(frozen=True)
class Pilot:
    """How many pilots there are, and when one ends."""

    max: int = _key(values.count(1, 1000), "How many pilots there may be at a time.", default="1")
    linger: int = _key(
        values.duration(0),
        "How long an idle pilot waits for more jobs; 0 ends it at once.",
        default="150",
    )
    slots: int = _key(values.count(1, 1000), "How many jobs a pilot runs at a time.", default="1")
    successor: bool = _key(
        values.YES_OR_NO,
        "Whether to queue the next pilot early, when the work that waits exceeds the walltime that "
        "a pilot has left, so that the two waits overlap; then up to max + 1 pilots may run.",
        default="no",
    )


@dataclass(frozen=True)
class Cronjob:
    """What a pass works on, on the service host."""

    dropbox: Path = _key(
        values.PATH,
        "The folder that users drop job files into.",
        example="/absolute/path/to/dropbox",
        required="always",
    )
    templates: Path = _key(
        values.PATH,
        "The folder of SCRIPT.template files.",
        worked_out="the templates of this checkout or installation",
    )
    state: Path = _key(
        values.PATH,
        "The private folder of the submitter, on a local disk.",
        worked_out="the dropbox's path with .state added",
    )
    lockfile: Path | None = _key(
        values.PATH,
        "One more file to lock during a pass, for sites that hold that lock elsewhere too.",
        example="/absolute/path/to/lockfile",
    )
    linger: int = _key(
        values.duration(0),
        "How long a pass keeps its login and goes on serving: drops and results are seen at once. "
        "It ends at the last second 55 of a minute within that time, and the next one takes over; "
        "0 ends it after its first round.",
        default="0",
    )
    settle: int = _key(
        values.duration(1),
        "How long a drop must stand unchanged where nothing tells whether it is still written.",
        default="10",
    )
    accept_from: tuple[str, ...] = _key(
        values.WORDS,
        "The users (names or numbers) whose drops are taken; empty: whoever can write there.",
        example="galaxy 1042",
    )
    input_roots: tuple[Path, ...] = _key(
        values.PATHS,
        "Folders that inputs must lie in; empty: anywhere.",
        example="/srv/galaxy/files:/srv/media",
    )
    output_roots: tuple[Path, ...] = _key(
        values.PATHS,
        "Folders that outputs must lie in; empty: anywhere.",
        example="/srv/galaxy/results",
    )


@dataclass(frozen=True)
class Limits:
    """Where patience ends."""

    attempts: int = _key(
        values.count(1, 100),
        "A job is given up after so many pilots died while running it.",
        default="3",
    )
    starts: int = _key(
        values.count(1, 1000), "A job is started at most so many times.", default="10"
    )
    time_limit: int | None = _key(
        values.duration(1),
        "How long one job may run, where its template says nothing; without it, as long as its "
        "pilot.",
        example="30m",
    )
    stdout_bytes: int = _key(
        values.SIZE,
        "How much of stdout and of stderr the answer holds; beyond, head and tail are kept.",
        default="256K",
    )
    input_bytes: int | None = _key(
        values.SIZE, "The largest input file that is carried.", example="200G"
    )
    store_bytes: int | None = _key(
        values.SIZE, "How much staged input may stay on the cluster for later jobs.", example="1T"
    )


SECTIONS: Mapping[str, type] = {
    "remote": Remote,
    "hpc": Hpc,
    "pilot": Pilot,
    "cronjob": Cronjob,
    "limits": Limits,
}

ENVIRONMENT = "hpc_env"
"""The section whose keys are the operator's own: names that templates may use."""

ENVIRONMENT_DOC: Mapping[str, tuple[str, str, str]] = {
    "workspace": (
        "/absolute/remote/path/hpc_batch/workspace",
        "always",
        "The folder on the cluster that pilots and jobs work in, visible from all its nodes.",
    ),
    "scripts": (
        "/absolute/remote/path/hpc_batch/on_hpc/scripts",
        "unless transport is local",
        "The on_hpc/scripts folder of the checkout on the cluster.",
    ),
    "containers": (
        "/absolute/path/to/containers",
        "",
        "Where the cluster's container images lie. This key and any other is for templates: "
        "<<containers>>.",
    ),
}
"""Name: example, when required, meaning."""


def _keys() -> dict[tuple[str, str], Key]:
    return {
        (section, f.name): Key(section=section, name=f.name, **f.metadata)
        for section, shape in SECTIONS.items()
        for f in fields(shape)
    }


KEYS: Mapping[tuple[str, str], Key] = _keys()
"""The whole table, in the order of the reference page."""


@dataclass(frozen=True)
class Config:
    """A configuration that was found to be right."""

    path: Path
    """The file it came from, absolute."""
    remote: Remote
    hpc: Hpc
    pilot: Pilot
    cronjob: Cronjob
    limits: Limits
    env: Mapping[str, str]
    """All of [hpc_env], names as written."""
    written: Mapping[tuple[str, str], str] = field(default_factory=dict, repr=False)
    """(section, key) of everything that stands in the file: its text, secrets hidden."""
