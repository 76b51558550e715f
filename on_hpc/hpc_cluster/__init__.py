"""hpc_cluster: the cluster's side of hpc_batch.

It runs from a bare checkout on the HPC head node and on compute nodes: standard library only,
Python 3.6 or later, JSON only. A job's state is the folder its ticket lies in (`spool`); pilots
claim tickets and run jobs (`runner`); the queuer keeps pilots in the batch system's queue
(`queuer`, `batch`); the session answers the service host over SSH (`session`).
"""

VERSION = "0.1.0"
"""The release, the same on both sides."""

PROTOCOL = 2
"""Number of the on-disk and on-wire formats. What 1 was like: `description`."""

ACCEPTED = tuple(number for number in (PROTOCOL, PROTOCOL - 1) if number)
"""Readers accept the previous number too: the cluster is upgraded first, then each service host."""
