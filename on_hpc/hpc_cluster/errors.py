"""What can go wrong on the cluster's side, by who must act.

ClusterError
├── WorkspaceError   the operator: the workspace is not ours, not writable, of another protocol
├── DescriptionError the user: a job's description cannot be acted on
├── BatchError       the operator: the batch system refused, with its own words
├── TicketError      nobody: a ticket moved under our hands; look again
└── UsageError       us: a request that makes no sense
"""


class ClusterError(Exception):
    """Anything this package reports; `kind` is the word that travels to the service host."""

    kind = "cluster"


class WorkspaceError(ClusterError):
    """The workspace cannot be used as it is."""

    kind = "workspace"


class BatchError(ClusterError):
    """The batch system refused a request."""

    kind = "batch"


class TicketError(ClusterError):
    """A ticket is no longer where it was."""

    kind = "ticket"


class DescriptionError(ClusterError):
    """A job's description is damaged or not understood."""

    kind = "description"


class UsageError(ClusterError):
    """A request that no near end of this protocol sends, or a mistyped one."""

    kind = "usage"
