"""The command line of a runner, as `queuer` writes it and the runner reads it."""

import argparse
from typing import TYPE_CHECKING, List, NamedTuple, Optional

from hpc_cluster import pilot
from hpc_cluster.ticket import is_random

if TYPE_CHECKING:
    from hpc_cluster.policy import Policy


class Options(NamedTuple):
    """What a pilot is told when it starts."""

    workspace: str
    pilot: str
    slots: int
    """Jobs at a time."""
    linger: float
    walltime: Optional[float]
    gpuram: Optional[float]
    """The least memory of a GPU, in GB."""
    gpu: bool
    """A GPU is asked for."""
    successor: bool
    """It tells when the work left exceeds its walltime, so that the next pilot is queued."""
    beat: float
    """Seconds between heartbeats."""


def words(workspace: str, name: str, policy: "Policy") -> List[str]:
    """Return the command line of a pilot's runner, without the program."""
    argv = ["--workspace", workspace, "--pilot", name, "--slots", str(policy.slots)]
    argv += ["--linger", f"{policy.linger:g}", "--walltime", str(policy.walltime)]
    if policy.gpuram is not None:
        argv += ["--gpuram", f"{policy.gpuram:g}"]
    if policy.wants_gpu and policy.scheduler != "local":  # which gives no resources
        argv.append("--gpu")
    if policy.successor:
        argv.append("--successor")
    return argv


def parse(argv: Optional[List[str]]) -> Options:
    """Return what a command line says; of this process where none is given. Exits where it errs."""
    parser = argparse.ArgumentParser(prog="hpc_runner", description="Run the jobs of a workspace.")
    parser.add_argument("--workspace", required=True, help="the workspace on the cluster")
    parser.add_argument("--pilot", required=True, help="the pilot's id, 16 hexadecimal digits")
    parser.add_argument("--slots", type=int, default=1, help="jobs at a time (1)")
    parser.add_argument(
        "--linger", type=float, default=150.0, help="seconds an idle pilot waits for more (150)"
    )
    parser.add_argument("--walltime", type=float, help="seconds it may live (no end)")
    parser.add_argument("--gpuram", type=float, help="the least memory of a GPU, in GB")
    parser.add_argument("--gpu", action="store_true", help="a GPU must be there")
    parser.add_argument(
        "--successor", action="store_true", help="tell when the work left exceeds the walltime"
    )
    parser.add_argument(
        "--beat", type=float, default=pilot.BEAT_S, help="seconds between heartbeats (30)"
    )
    options = Options(**vars(parser.parse_args(argv)))
    if not is_random(options.pilot) or options.slots < 1 or options.beat <= 0:
        parser.error("a pilot's id has 16 hexadecimal digits; slots and beat are above 0")
    return options
