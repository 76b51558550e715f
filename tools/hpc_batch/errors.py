"""What can go wrong on the service host, by who must act.

HpcBatchError
├── ConfigError            the operator: configuration, state or dropbox unusable   exit 78
├── JobFileError           the user: the job file is wrong                          exit 65
│   └── TemplateError      the user or the operator: script unknown or not renderable
├── MissingInputError      the user: an input is not there                          exit 66
├── RemoteError            nobody: the next pass tries again                        exit 75, 69
│   ├── Unreachable        no connection
│   ├── RemoteTimeout      no answer in time
│   ├── AuthenticationError  the operator: key refused, passphrase wrong            exit 78
│   ├── HostKeyError       the operator: unknown or changed host key                exit 78
│   └── FarEndError        the cluster's side said no: python, checkout, workspace  exit 78
├── StorageError           nobody: a disk of this host said no                      exit 75
└── AnsweredError          a client: the job was answered with an error             exit 1
    ├── JobError             for a reason of its own
    └── InfrastructureError  for no reason of its own
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Sequence


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a file a person wrote."""

    line: int | None
    """1-based line in the file, None where no line can be named."""
    text: str
    """One sentence: what is wrong and what to do."""

    def __str__(self) -> str:
        return f"line {self.line}: {self.text}" if self.line else self.text


class HpcBatchError(Exception):
    """Anything that hpc_batch reports by itself; `exit_code` is the command line's."""

    exit_code = 70


class ConfigError(HpcBatchError):
    """The operator must mend configuration, state or dropbox."""

    exit_code = 78

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class JobFileError(HpcBatchError):
    """The user must mend the job file; carries every problem that was found."""

    exit_code = 65

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(str(p) for p in problems))
        self.problems = tuple(problems)


class TemplateError(JobFileError):
    """The script is unknown, or its template cannot be rendered with these values."""


class MissingInputError(HpcBatchError):
    """An input file is missing or cannot be read."""

    exit_code = 66


class RemoteError(HpcBatchError):
    """The cluster could not be used this time; `hint` says what an operator can do."""

    exit_code = 75

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class Unreachable(RemoteError):
    """No connection to the cluster."""


class RemoteTimeout(RemoteError):
    """No answer within the time that was set."""


class AuthenticationError(RemoteError):
    """The cluster refused the key, or the key could not be unlocked."""

    exit_code = 78


class HostKeyError(RemoteError):
    """The host's key is unknown, or not the one that is known."""

    exit_code = 78


class FarEndError(RemoteError):
    """The cluster's side refused; `kind` is its word for why."""

    exit_code = 78

    def __init__(self, kind: str, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.kind = kind


class StorageError(HpcBatchError):
    """A disk of the service host said no, to the pass itself and not to one job."""

    exit_code = 75


class AnsweredError(HpcBatchError):
    """A job was answered with an error; `answer` is the whole `.finished` mapping."""

    exit_code = 1

    def __init__(self, answer: dict[str, Any]) -> None:
        node = answer.get("job", {})
        super().__init__(f"{node.get('reason')}: {node.get('message')}")
        self.answer = answer


class JobError(AnsweredError):
    """The job failed for a reason of its own: its script, its description, its inputs."""


class InfrastructureError(AnsweredError):
    """The job failed for no reason of its own: pilot_died, stage_in, stage_out, lost."""
