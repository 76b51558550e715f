"""The private folder of an ssh master: its socket, and for the seconds of a login a passphrase.

A process that is killed cannot remove its folder. So whoever makes one removes those of the same
user that are a day old and whose socket nobody listens to.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

from hpc_batch.errors import ConfigError
from hpc_cluster import files

PREFIX = "hpcb-"
SOCKET = "s"
SOCKET_BYTES = 80
"""The longest path of a socket: 108 in sockaddr_un less the 17 that ssh adds while it makes it."""
STALE_S = 24 * 3600


def make() -> Path:
    """Make a folder that nobody else can enter, with a path short enough for a socket."""
    for base in (tempfile.gettempdir(), "/tmp"):
        if len(os.fsencode(base)) + len(f"/{PREFIX}12345678/{SOCKET}") <= SOCKET_BYTES:
            sweep(Path(base))
            return Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))
    raise ConfigError("no folder for temporary files has a path short enough for a socket")


def remove(folder: Path) -> None:
    """Remove a folder and all in it."""
    files.remove_tree(str(folder))


def sweep(base: Path) -> None:
    """Remove what killed processes of this user have left in a folder for temporary files."""
    for folder in base.glob(PREFIX + "*"):
        try:
            found = folder.lstat()
        except FileNotFoundError:
            # RACE: its owner removed it meanwhile.
            continue
        old = time.time() - found.st_mtime > STALE_S
        if old and found.st_uid == os.geteuid() and not listens(folder / SOCKET):
            remove(folder)


def listens(path: Path) -> bool:
    """Tell whether somebody listens at a socket."""
    import socket  # seldom asked, and every login would pay for what it loads

    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True
