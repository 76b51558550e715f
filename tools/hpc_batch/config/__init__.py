"""The operator's one `.ini` file, as values.

One declarative table (`table`: the fields of frozen dataclasses, each with its kind, default and
meaning) is the source of parsing, defaults, the commented sample and the reference page:

    values    the kinds: text -> value, each with a sentence for what it does not accept
    table     Config and its sections; every key once
    ini       the file's syntax, with line numbers: text -> entries
    reading   find and load: entries -> Config, or every problem at once
    pages     sample, compose, reference, masked: Config and table -> text for people
    mounts    whether a path lies on a network file system

Nothing is interpolated: a passphrase may hold '%' and '$'.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hpc_batch.config.mounts import network_file_system
from hpc_batch.config.reading import find, load
from hpc_batch.config.table import Config, Cronjob, Hpc, Limits, Pilot, Remote

if TYPE_CHECKING:
    from hpc_batch.config.pages import compose, masked, reference, sample

__all__ = [
    "Config",
    "Cronjob",
    "Hpc",
    "Limits",
    "Pilot",
    "Remote",
    "compose",
    "find",
    "load",
    "masked",
    "network_file_system",
    "reference",
    "sample",
]


def __getattr__(name: str) -> object:
    """Load the pages when one is wanted: no pass needs them."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from hpc_batch.config import pages

    return getattr(pages, name)
