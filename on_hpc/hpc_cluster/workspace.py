"""The workspace: one folder on the cluster for all that service hosts and pilots share.

    PROTOCOL   which protocol its users speak; made last, so a folder without it is no workspace
    incoming/  ready/  running/  done/INSTANCE/     tickets, which `spool` moves
    jobs/J/    description.json  in0  in1  cancel  aN/         the data, which never moves
    inputs/KEY   slots/K/   pilots/P/   trash/   kept/

It belongs to one account (mode 0700). This room makes it, opens it, and knows where things lie.
"""

import errno
import os
from typing import Tuple, Type, TypeVar

from hpc_cluster import ACCEPTED, PROTOCOL, durable, files
from hpc_cluster.errors import WorkspaceError

FOLDERS = (
    "incoming",
    "ready",
    "running",
    "done",
    "jobs",
    "inputs",
    "slots",
    "pilots",
    "trash",
    "kept",
)
"""What a workspace holds beside PROTOCOL."""

ADVICE = {
    errno.ENOENT: "its parent folder does not exist: make it, or correct the path",
    errno.ENOTDIR: "it, or a part of its path, is no folder: correct the path",
    errno.EACCES: "permission denied: give a folder that this account owns",
    errno.EPERM: "not permitted: give a folder that this account owns",
    errno.EROFS: "the file system is read-only",
    errno.ENOSPC: "no space is left there",
    errno.EDQUOT: "the quota is used up there",
}
"""What an operator is told of a workspace that cannot be made."""

W = TypeVar("W", bound="Workspace")


class Workspace:
    """One workspace and the paths in it. Get one with `open` or `make`."""

    def __init__(self, workspace: str) -> None:
        self.workspace = os.path.abspath(workspace)
        """The absolute path, as given."""
        self.root = files.to_bytes(self.workspace)
        """The same as bytes."""

    @classmethod
    def open(cls: Type[W], workspace: str) -> W:
        """Return an existing workspace.

        Raises WorkspaceError, and OSError for what may pass.
        """
        found = cls(workspace)
        try:
            text = files.read_bytes(found.path("PROTOCOL"), 100).decode("ascii", "replace").strip()
        except FileNotFoundError:
            raise WorkspaceError(
                f"{found.workspace} is no workspace of hpc_batch (it has no file PROTOCOL). "
                "Check the path; the submitter makes a new one by itself"
            ) from None
        except OSError as error:
            if error.errno in files.PASSING:
                raise
            raise _unusable(found.workspace, error) from error
        if text not in [str(number) for number in ACCEPTED]:
            raise WorkspaceError(
                f"the workspace {found.workspace} has protocol {text!r} and this program speaks "
                f"{PROTOCOL}: use a checkout of the same release on both sides (the cluster is "
                "upgraded first), or another workspace"
            )
        if os.stat(found.root).st_uid != os.geteuid():
            raise WorkspaceError(
                f"the workspace {found.workspace} belongs to another account: all service hosts "
                "of one workspace log in as one account"
            )
        return found

    @classmethod
    def make(cls: Type[W], workspace: str) -> Tuple[W, bool]:
        """Return the workspace, made first where it is missing, and whether it was.

        Raises WorkspaceError, and OSError for what may pass.

        Folders come first and PROTOCOL last. Empty folders of our names without PROTOCOL are a
        making that was interrupted, and it is continued; anything in them without PROTOCOL is
        refused, since it may be a workspace whose PROTOCOL was lost.
        """
        made = cls(workspace)
        try:
            if files.exists(made.path("PROTOCOL")):
                return cls.open(workspace), False
            files.make_folder(made.root)
            held = [name for name in FOLDERS if files.exists(made.path(name))]
            full = [name for name in held if os.listdir(made.path(name))]
            if full and not files.exists(made.path("PROTOCOL")):
                raise WorkspaceError(
                    "{} has no file PROTOCOL but holds {}: not made by hpc_batch, or damaged. Give "
                    "another workspace, or look at these folders and move them away".format(
                        made.workspace, ", ".join(full)
                    )
                )
            files.change_mode(made.root, 0o700)
            for name in FOLDERS:
                files.make_folder(made.path(name))
            durable.sync_folder(made.root)
            _sync_parent(made.root)
            files.replace(
                made.path("PROTOCOL"),
                f"{PROTOCOL}\n".encode("ascii"),
                f".{os.urandom(4).hex()}.new",
            )
        except OSError as error:
            if error.errno in files.PASSING and error.errno not in ADVICE:
                raise
            raise _unusable(made.workspace, error) from error
        return cls.open(workspace), True

    # ---- paths -------------------------------------------------------------------------------

    def path(self, *names: str) -> bytes:
        """Return the path of something in the workspace."""
        return self.root + b"/" + files.to_bytes("/".join(names))

    def job_folder(self, job: str) -> bytes:
        """Return jobs/J."""
        return self.path("jobs", job)

    def input_path(self, job: str, number: int) -> bytes:
        """Return jobs/J/inN."""
        return self.path("jobs", job, f"in{number}")

    def attempt_folder(self, job: str, attempt: int) -> bytes:
        """Return jobs/J/aN."""
        return self.path("jobs", job, f"a{attempt}")

    def pilot_folder(self, pilot: str) -> bytes:
        """Return pilots/P."""
        return self.path("pilots", pilot)


def _sync_parent(root: bytes) -> None:
    """Make the workspace's own name durable, where its parent folder may be opened."""
    try:
        durable.sync_folder(os.path.dirname(root))
    except PermissionError:
        # RACE: none; a site may let nobody list the folder of all accounts.
        return


def _unusable(workspace: str, error: OSError) -> WorkspaceError:
    """Return what to tell the operator when the file system refuses."""
    advice = ADVICE.get(error.errno or 0, str(error))
    return WorkspaceError(f"the workspace {workspace} cannot be used: {advice}")
