"""Whether a path lies on a network file system.

The submitter's state must not: locks and fsync mean less there (protocol.md, section 2), and two
machines could take it for theirs. Linux lists its mounts in /proc/self/mountinfo (proc(5)); the
longest mount point above the path decides, and of equal ones the last, which hides the others.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

NETWORK = frozenset(
    (
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "afs",
        "lustre",
        "gpfs",
        "beegfs",
        "beegfs_nodev",
        "ceph",
        "glusterfs",
        "9p",
        "orangefs",
        "pvfs2",
        "panfs",
        "ncpfs",
        "coda",
        "ocfs2",
        "gfs2",
        "acfs",
        "wekafs",
        "vastnfs",
        "daos",
    )
)
"""Types that other machines may have mounted at the same time."""

LOCAL_FUSE = frozenset(("fuseblk", "fuse.fuse-overlayfs"))
"""FUSE file systems of this machine alone; any other may be sshfs, GlusterFS, CephFS, rclone ..."""


def network_file_system(path: Path) -> str | None:
    """Return the type of the network file system that `path` lies on, None when it is local.

    The path need not exist yet. None also where the mounts cannot be listed.
    """
    try:
        mounts = Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape")
    except OSError:
        return None
    kind = file_system_type(os.path.realpath(path), mounts)
    return kind if is_network(kind) else None


def is_network(kind: str) -> bool:
    """Tell whether a file system's type is one that machines share."""
    is_fuse = kind == "fuse" or kind.startswith("fuse.")
    return kind in NETWORK or (is_fuse and kind not in LOCAL_FUSE)


def file_system_type(path: str, mounts: str) -> str:
    """Return the type of the file system that an absolute path lies on, "" when none is listed."""
    longest, kind = "", ""
    for line in mounts.split("\n"):
        before, separator, after = line.partition(" - ")
        words = before.split(" ")
        if not separator or len(words) < 5:
            continue
        point = _unescaped(words[4])
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(longest):
            longest, kind = point, after.split(" ")[0]
    return kind


def _unescaped(point: str) -> str:
    """Return a mount point as it is: mountinfo writes blanks and backslashes in octal."""
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), point)
