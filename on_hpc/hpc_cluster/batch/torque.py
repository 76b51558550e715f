"""Torque: qsub, qstat, qdel as PBS has them, and as Slurm's wrappers imitate them.

The wrappers differ from Torque where it matters. They read no script from standard input, so it
lies in a file, and that is named without its folder, because they hand everything to a shell,
unquoted. Of several `-l` only the last counts, so there is one, and what the operator wrote
into `options` is merged into it. Without `-v` the whole environment goes over. They know no JSON
and no XML, and have no option for a warning signal: the script asks Slurm for it in a line that is
a comment to Torque. And what sbatch complains of arrives on standard output.
"""

import os
import re
from typing import Dict, List, Sequence, Tuple

from hpc_cluster.batch import (
    Answer,
    Captured,
    Command,
    Request,
    Wanted,
    account,
    gpus,
    hours,
    nonce,
    script,
    unaided,
)
from hpc_cluster.batch.pbs import Pbs, account_and_queue, quiet
from hpc_cluster.batch.slurm import Slurm

IN_FOLDER = 'cd "$0" && exec qsub "$@"'
"""For a shell whose $0 is the folder of the script."""

WRAPPED = "There was an error running the Slurm sbatch command."


class Torque(Pbs):
    """The commands of Torque and what they say."""

    def submit(self, request: Request) -> Command:
        """Return the qsub command and its script for a file beside the log."""
        wishes = {key: value for key, value in request.options if value}
        folder = os.path.dirname(request.log)
        wanted, extra = _resources(request.extra)
        resources = [f"walltime={hours(request.walltime_s)}", *_needs(wishes), *wanted]
        argv = [
            "sh",
            "-c",
            IN_FOLDER,
            folder,
            "-N",
            nonce.short_name(request.pilot),
            *quiet(request),
        ]
        argv += ["-l", ",".join(resources), *account_and_queue(wishes), *extra, "script"]
        ask = f"#SBATCH --signal=B:USR1@{request.warning_s}"
        return Command(tuple(argv), script(request, ask, *unaided(request)), f"{folder}/script")

    def submitted(self, captured: Captured) -> Answer:
        """Return submitted, refused or unclear; of a wrapper, what Slurm's dialect makes of it."""
        _, wrapped, told = captured.stdout.partition(WRAPPED)
        if wrapped and captured.rc != 0:
            words = [match.group(1) for match in re.finditer("(?m)^ ?'?(sbatch: .*)$", told)]
            return Slurm().submitted(captured._replace(stdout="", stderr="\n".join(words) or told))
        return super().submitted(captured)

    def query(self, wanted: Sequence[Wanted]) -> Command:
        """Return the one command that lists this account's pilots."""
        return Command(("qstat", "-u", account()))


def _needs(wishes: Dict[str, str]) -> List[str]:
    """Return memory, GPUs and quality of service as Torque's resources."""
    needs = []
    if "gres" in wishes:
        count = gpus(wishes["gres"])
        needs.append(f"nodes=1:ppn=1:gpus={count}" if count else f"nodes=1:ppn=1:{wishes['gres']}")
    if "memory" in wishes:
        needs.append(f"mem={wishes['memory']}gb")
    if "qos" in wishes:
        needs.append(f"qos={wishes['qos']}")
    return needs


def _resources(extra: Sequence[str]) -> Tuple[List[str], List[str]]:
    """Part the operator's arguments into what is asked for with -l, and the rest."""
    resources, rest = [], []
    words = list(extra)
    while words:
        word = words.pop(0)
        if word == "-l" and words:
            resources.append(words.pop(0))
        elif re.match("-l.", word):
            resources.append(word[2:])
        else:
            rest.append(word)
    return resources, rest
