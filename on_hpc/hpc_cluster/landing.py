"""Landing: an edition of on_hpc arrives on the cluster and comes into use.

It is unpacked under a name that nobody reads, its digest is checked, all of it is made durable, and
it is renamed to editions/VERSION-DIGEST; then one rename lets SCRIPTS point into it (`edition`).
Killed at any moment, SCRIPTS is the old edition or the new one, and landing again completes it. An
edition that is there already is not unpacked again. Editions that were replaced stay, the latest
KEPT of them: a session that began before may still import from its own.

What stands at SCRIPTS and was not landed, such as a checkout, is moved aside when that is
permitted, and refused otherwise.
"""

import errno
import io
import os
import tarfile
from typing import Any, Dict

from hpc_cluster import durable, edition, files
from hpc_cluster.errors import ClusterError

KEPT = 3

LITTER_S = 3600.0
"""What a killed landing left is removed after so long; a younger one may still be at work."""


class LandingError(ClusterError):
    """The edition cannot be landed there."""

    kind = "deploy"


def land(scripts: str, archive: bytes, wanted: Dict[str, Any], replace: bool) -> Dict[str, Any]:
    """Bring an edition into use at SCRIPTS and return what was done.

    `archive` is a tar of the edition, `wanted` its facts (`edition.facts`); `replace` permits to
    move aside what is no edition. Raises LandingError, OSError.
    """
    before = edition.describe(scripts)
    if before["kind"] in ("checkout", "plain") and not replace:
        raise LandingError(f"{scripts} is there and was not deployed: a {before['kind']} folder")
    parent = os.path.dirname(os.path.abspath(scripts))
    name = "{version}-{digest}".format(**wanted)
    made = _unpack(parent, name, archive, wanted)
    aside = None
    text = os.path.join(edition.EDITIONS, name, "scripts")
    if before["kind"] in ("checkout", "plain"):
        aside = f"{scripts}.{os.urandom(4).hex()}.old"
        files.rename(scripts, aside)
    used = before["kind"] == "deployed" and os.readlink(scripts) == text
    if not used:
        link = f"{scripts}.{os.urandom(4).hex()}.new"
        files.symlink(text, link)
        files.rename(link, scripts)
        durable.sync_folder(parent)
    removed = _forget(os.path.join(parent, edition.EDITIONS), name)
    return {
        "before": before,
        "edition": os.path.join(parent, edition.EDITIONS, name),
        "unpacked": made,
        "switched": not used,
        "aside": aside,
        "removed": removed,
    }


def _unpack(parent: str, name: str, archive: bytes, wanted: Dict[str, Any]) -> bool:
    """Make editions/NAME, whole and durable; False when it was there already."""
    for folder in (parent, os.path.join(parent, edition.EDITIONS)):
        files.make_folders(folder)
    target = os.path.join(parent, edition.EDITIONS, name)
    if edition.describe(os.path.join(target, "scripts")).get("digest") == wanted["digest"]:
        files.touch(target)
        return False
    draft = f"{target}.{os.urandom(4).hex()}.new"
    files.make_folder(draft)
    try:
        paths, folders = [], {draft}
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            for member in tar.getmembers():
                path = os.path.join(draft, *_parts(member))
                folder = os.path.dirname(path)
                while folder not in folders:
                    files.make_folders(folder)
                    folders.add(folder)
                    folder = os.path.dirname(folder)
                file = tar.extractfile(member)
                data = b"" if file is None else file.read()
                files.write_new(path, data, 0o700 if member.mode & 0o100 else 0o600)
                paths.append(path)
        arrived = edition.describe(os.path.join(draft, "scripts")).get("digest")
        if arrived != wanted["digest"]:
            raise LandingError(f"what arrived is damaged: {arrived}, not {wanted['digest']}")
        durable.sync_files(paths)
        durable.sync_folders(sorted(folders))
        if not _appears(draft, target, wanted):
            return False
        durable.sync_folder(os.path.join(parent, edition.EDITIONS))
    except BaseException:
        files.remove_tree(draft)
        raise
    return True


def _appears(draft: str, target: str, wanted: Dict[str, Any]) -> bool:
    """Rename the draft to its name, in the place of one that somebody has changed.

    False, and without the draft, where another landing of the same was faster.
    """
    while True:
        try:
            files.rename(draft, target)
            return True
        except OSError as error:
            # RACE: two service hosts of one cluster deploy at the same time.
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        there = edition.describe(os.path.join(target, "scripts"))
        if there.get("digest") == wanted["digest"]:
            files.remove_tree(draft)
            return False
        old = f"{target}.{os.urandom(4).hex()}.old"
        if files.move(target, old):
            files.remove_tree(old)


def _parts(member: tarfile.TarInfo) -> Any:
    """Return the parts of a member's name. Raises LandingError for what we never send."""
    parts = member.name.split("/")
    if not member.isfile() or any(part in ("", ".", "..") for part in parts):
        raise LandingError(f"what arrived is damaged: it holds {member.name!r}")
    return parts


def _forget(folder: str, used: str) -> Any:
    """Remove all but the latest editions, and what killed landings left; return their names."""
    files.touch(os.path.join(folder, used))
    times = {}
    for name in files.names(folder):
        try:
            times[name] = os.stat(os.path.join(folder, name)).st_mtime
        except FileNotFoundError:
            # RACE: another landing has finished or removed it.
            continue
    found = sorted((name for name in times if name != used), key=lambda name: times[name])
    drafts = [name for name in found if name.endswith((".new", ".old"))]
    whole = [name for name in found if name not in drafts]
    removed = whole[: -(KEPT - 1)]
    removed += [name for name in drafts if times[used] - times[name] > LITTER_S]
    for name in removed:
        files.remove_tree(os.path.join(folder, name))
    return removed
