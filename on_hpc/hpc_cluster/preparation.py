"""The preparation of an attempt: the folder of one start of a job, until its script can run.

    aN/  job.sh  work/

Making aN is what makes the start this pilot's own. The script gets what is known only now, and the
inputs are put into work/ (`work`).
"""

import os
from typing import List, NamedTuple, Optional

from hpc_cluster import description, files
from hpc_cluster.errors import ClusterError
from hpc_cluster.spool import Spool
from hpc_cluster.ticket import Ticket
from hpc_cluster.work import QUICK_BYTES, QUICK_FILES, CannotStart, Look, fill, look_once


class Taken(ClusterError):
    """This start is not ours to make."""


class Prepared(NamedTuple):
    """What is ready to be started."""

    script: bytes
    """What job.sh holds."""
    given: List[bytes]
    """Not durable yet: job.sh, then the folders."""


class Preparation:
    """That of one start of one job."""

    def __init__(
        self, spool: Spool, ticket: Ticket, found: Optional[description.Description]
    ) -> None:
        """`found` is the job's description, where it was read already."""
        self.ticket = ticket
        """The ticket of the start that is made; `make` may have to go on to a later one."""
        self.description = found
        """None until it was read."""
        self._spool = spool
        self._made = False
        """The folder is this start's own."""

    @property
    def folder(self) -> bytes:
        """Where it is made, aN."""
        return self._spool.attempt_folder(self.ticket.job, self.ticket.starts)

    def is_quick(self) -> bool:
        """Tell whether the inputs are so few that no thread is needed.

        Raises DescriptionError, OSError.
        """
        inputs = self._described(look_once).inputs
        size = sum(item.size for item in inputs)
        return size <= QUICK_BYTES and len(inputs) <= QUICK_FILES

    def make(self, look: Look) -> Prepared:
        """Make the folder, with all that the script needs; safe to repeat.

        Raises Taken, CannotStart, DescriptionError, OSError.
        """
        job = self.ticket.job
        job_folder = self._spool.job_folder(job)
        try:
            found = self._described(look)
            if found.job != job:
                raise CannotStart("the description belongs to another job")
            look(os.stat, job_folder)  # what was read to choose it may be gone since
            text = description.script(found, job_folder, lambda p: look(files.read_bytes, p))
        except FileNotFoundError as error:
            raise CannotStart("its files on the cluster were deleted", "lost") from error
        self._make_folder(found.starts)
        fill(self.folder, job_folder, found, look)
        word, own = found.word.encode("ascii"), f"a{self.ticket.starts}".encode("ascii")
        path, script = files.join(self.folder, "job.sh"), text.replace(word, own)
        files.write_new(path, script, 0o700)
        work = files.join(self.folder, "work")
        inner = [files.join(work, name) for name in ("input", "output") if found.layout == "split"]
        return Prepared(script, [path, job_folder, self.folder, work, *inner])

    def unmake(self) -> None:
        """Remove the folder of a start that was not begun."""
        if self._made:
            files.remove_tree(self.folder)
            self._made = False

    def _described(self, look: Look) -> description.Description:
        """Return the description, read once."""
        if self.description is None:
            path = files.join(self._spool.job_folder(self.ticket.job), description.NAME)
            read: description.Description = look(description.read, path)
            self.description = read
        return self.description

    def _make_folder(self, starts: int) -> None:
        """Make the folder of this start; where there is one, make it the next start.

        RACE: a file server that crashed forgot another pilot's claim. Its job still runs in that
        folder, until that pilot misses its ticket.
        """
        self.unmake()  # what a look too early has left
        while not files.make_folder(self.folder):
            if self.ticket.starts >= starts:
                raise Taken("its last start was begun before")
            again = self._spool.restart(self.ticket)
            if again is None:
                raise Taken("its ticket is gone")
            self.ticket = again
        self._made = True
