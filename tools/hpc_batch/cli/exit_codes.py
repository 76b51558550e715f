"""Exit codes are interface: they are only added, and an unknown one must be treated as failure."""

OK = 0
"""Done; also: nothing to do, and another pass is running."""
FAILED = 1
"""The job or the check failed."""
USAGE = 2
BAD_JOB_FILE = 65
NO_INPUT = 66
UNAVAILABLE = 69
"""The cluster has been unreachable for longer than tolerated."""
BUG = 70
TEMPORARY = 75
"""It will be tried again: by the next pass, or by whoever waited."""
CONFIGURATION = 78
INTERRUPTED = 130
BROKEN_PIPE = 141
"""128 and the signal's number, as shells report them."""
STILL_WAITING = 255
"""Only from `check` and `run --lwlw`: ask again later."""
