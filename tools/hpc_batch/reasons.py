"""Reasons in words: the batch system's for a pilot that waits, ours for an answer."""

from __future__ import annotations

SCHEDULER_WORDS = {
    "Priority": "others are before it in the cluster's queue",
    "Resources": "it is next, and waits for nodes to become free",
    "QOSMax": "a limit of its quality of service is reached",
    "QOSGrp": "a limit of its quality of service is reached by all its users together",
    "AssocMax": "a limit of the account is reached",
    "AssocGrp": "a limit of the account is reached by all its users together",
    "InvalidAccount": "the account may not submit: look at [hpc] account",
    "InvalidQOS": "that quality of service is not for this account: look at [hpc] qos",
    "AccountNotAllowed": "the account may not use the partition: look at [hpc] account, partition",
    "QOSNotAllowed": "that quality of service is not for the partition: look at [hpc] qos",
    "PartitionTimeLimit": "it asks for more time than the partition gives: look at [hpc] walltime",
    "PartitionNodeLimit": "it asks for more than the partition has: look at [hpc] partition, gres",
    "PartitionConfig": "it asks for more than the partition has: look at [hpc] partition, options",
    "PartitionDown": "the partition is down",
    "PartitionInactive": "the partition takes no jobs now",
    "ReqNodeNotAvail": "the nodes it needs are down or reserved, for a maintenance perhaps",
    "Reservation": "it waits for a reservation",
    "JobHeldUser": "somebody holds it: release it, or `hpc-batch pilot cancel`",
    "JobHeldAdmin": "the cluster's operators hold it: ask them",
    "BadConstraints": "no node is as it asks for: look at [hpc] options",
    "Licenses": "it waits for a license",
    "BeginTime": "it may begin only later",
    "DependencyNeverSatisfied": "the job that it waits for failed: look at [hpc] options",
    "Dependency": "it waits for another job",
}
"""What beginnings of the scheduler's reasons mean; its own word is always shown."""

OBSTACLES = (
    *("QOS", "Assoc", "MaxMemPerLimit", "Invalid", "AccountNotAllowed", "BadConstraints"),
    *("PartitionTimeLimit", "PartitionNodeLimit", "PartitionConfig", "JobHeld"),
    "DependencyNeverSatisfied",
)
"""Beginnings of the scheduler's reasons that waiting alone will not, or may not, overcome."""

NEXT = {
    "exit_code": "its script failed: `hpc-batch logs --stderr {name}` shows what it said",
    "time_limit": "give its template a longer --time-limit, or it a smaller input; then retry",
    "out_of_memory": "ask for more: [hpc] memory, or #HPC --memory; then retry",
    "stage_out": "see the message: its script must write every output of output_map, "
    "and their folders must be writable here; then `hpc-batch retry {name}`",
    "stage_in": "see the message; then `hpc-batch retry {name}`",
    "rejected": "mend the job file and drop it again",
    "pilot_died": "look at the node and the memory that it names; then `hpc-batch retry {name}`",
    "lost": "`hpc-batch retry {name}`; and see who removed its files on the cluster",
    "cancelled": "`hpc-batch retry {name}` if it was a mistake",
}
"""What to do about an answer, by its reason."""


def is_obstacle(reason: str | None) -> bool:
    """Tell whether somebody has to do something before a pilot that waits for this can start."""
    return bool(reason) and str(reason).startswith(OBSTACLES)


def meaning(reason: str | None) -> str:
    """Return what the scheduler's word means; "" for an unknown one."""
    for word, text in SCHEDULER_WORDS.items():
        if reason and reason.startswith(word):
            return text
    return ""
