"""Which configuration a command is about."""

from __future__ import annotations

from hpc_batch import config as configuration
from hpc_batch.cli.request import Request
from hpc_batch.config import Config
from hpc_batch.errors import ConfigError


def load(request: Request) -> Config:
    """Return the configuration that is meant. Raises ConfigError."""
    return configuration.load(configuration.find(request.config))


def load_if_any(request: Request) -> Config | None:
    """Return the configuration that is meant, or None when there is none and none was named."""
    try:
        path = configuration.find(request.config)
    except ConfigError:
        return None
    return configuration.load(path)
