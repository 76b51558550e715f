"""Slurm's dialect, on what a real Slurm 26.05 printed, whole and broken.

Each file of data/captured/slurm holds the command, its return code, what it printed, and after
`# stderr` what it complained.
"""

import re
from pathlib import Path

import pytest

from hpc_cluster import batch
from hpc_cluster.batch import ENDED, QUEUED, RUNNING, UNKNOWN, Captured, PilotState
from hpc_cluster.batch.slurm import Slurm
from hpc_cluster.errors import BatchError

CAPTURED = Path(__file__).parent.parent / "data" / "captured" / "slurm"
P, Q = "a" * 16, "b" * 16

REQUEST = batch.Request(
    pilot=P,
    name="hpcb01234567-0",
    workspace="/scratch/w 100%",
    log="/scratch/w 100%/pilots/P/log",
    prologue="module load apptainer\n",
    argv=("python3", "/scratch/w 100%/code/hpc_runner", "--workspace", "/scratch/w 100%"),
    walltime_s=28801,
    warning_s=90,
    options=(("account", "acc"), ("gres", "gpu:v100:1"), ("memory", "32"), ("qos", "")),
    extra=("--constraint=a|b",),
)


def captured(name):
    text = (CAPTURED / f"{name}.txt").read_text()
    out, _, err = text.partition("# stderr\n")
    rc = int(re.search(r"(?m)^# rc (\d+)$", out).group(1))
    lines = [line for line in out.splitlines(True) if not line.startswith("#")]
    return Captured(rc, "".join(lines), err, timed_out=rc == 124)


def as_nonces(answer):
    """Give the comments of a captured listing the shape of ours: 16 hexadecimal digits."""
    nonces = {}

    def replace(match):
        return match.group(1) + nonces.setdefault(match.group(2), format(len(nonces), "016x"))

    text = re.sub(r"(?m)^((?:[^|\n]*\|){5})(\w+)", replace, answer.stdout)
    listed = Slurm().listed(answer._replace(stdout=text))
    return {name: listed[nonce] for name, nonce in nonces.items()}


# ---- submitting ----------------------------------------------------------------------------------


def test_the_submission_says_everything_once():
    command = Slurm().submit(REQUEST)
    assert command.argv == (
        "sbatch",
        "--parsable",
        "--job-name=hpcb01234567-0",
        f"--comment={P}",
        "--export=NONE",
        "--no-requeue",
        "--signal=B:USR1@90",
        "--open-mode=append",
        "--output=/scratch/w 100%%/pilots/P/log",
        "--chdir=/scratch/w 100%",
        "--time=481",
        "--account=acc",
        "--gres=gpu:v100:1",
        "--mem=32G",
        "--constraint=a|b",
    )
    assert command.stdin == (
        b"#!/bin/bash\nexport HPC_BATCH_END_TIME=$(($(date +%s) + 28801))\nmodule load apptainer\n"
        b"exec python3 '/scratch/w 100%/code/hpc_runner' --workspace '/scratch/w 100%'\n"
    )


def test_an_acknowledged_submission_has_its_id():
    assert Slurm().submitted(captured("sbatch_parsable")) == batch.Submitted("1")


@pytest.mark.parametrize(
    ("stdout", "native_id"),
    [
        ("17\n", "17"),
        ("17;cluster2\n", "17"),
        ("Welcome!\n----\n17\n", "17"),
        ("3 jobs before yours\n17;c\n", "17"),
    ],
)
def test_an_id_is_found_among_a_sites_banners(stdout, native_id):
    assert Slurm().submitted(Captured(0, stdout, "")) == batch.Submitted(native_id)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("sbatch_bad_partition", "Invalid partition name specified"),
        ("sbatch_bad_mem", "Requested node configuration is not available"),
        ("sbatch_bad_gres", "Requested node configuration is not available"),
        ("sbatch_no_shebang", "For instance: #!/bin/sh"),
        ("sbatch_refused_by_lua", "project quota exhausted"),
        ("down_sbatch", "Unable to contact slurm controller (connect failure)"),
    ],
)
def test_a_refusal_is_told_in_slurms_own_words(name, words):
    answer = Slurm().submitted(captured(name))
    assert isinstance(answer, batch.Refused) and words in answer.message


@pytest.mark.parametrize(
    "name",
    ["stopped_sbatch", "stopped_killed_sbatch", "reply_delayed_sbatch", "sbatch_maxjobcount"],
)
def test_a_lost_answer_stays_unclear(name):
    assert isinstance(Slurm().submitted(captured(name)), batch.Unclear)


@pytest.mark.parametrize(
    "answer",
    [
        Captured(0, "", ""),
        Captured(0, "Submitted batch job\n", ""),
        Captured(-9, "", ""),
        Captured(137, "", "Killed\n"),
        Captured(1, "", "something new\n"),
        Captured(0, "17\n", "", timed_out=True),
    ],
)
def test_what_is_not_understood_stays_unclear(answer):
    assert isinstance(Slurm().submitted(answer), batch.Unclear)


def test_a_missing_sbatch_is_a_refusal():
    answer = Slurm().submitted(batch.run(batch.Command(("/no/such/sbatch",))))
    assert answer == batch.Refused(
        "sbatch cannot be started: /no/such/sbatch: No such file or directory"
    )


# ---- listing -------------------------------------------------------------------------------------


def test_one_query_asks_for_all_slots_by_name():
    wanted = [batch.Wanted(P, "hpcb0-1", None), batch.Wanted(Q, "hpcb0-0", "7")]
    argv = Slurm().query([*wanted, wanted[0]]).argv
    assert argv[0] == "squeue" and "--name=hpcb0-0,hpcb0-1" in argv and "--states=all" in argv
    assert "--format=%i|%T|%S|%e|%r|%k" in argv


@pytest.mark.parametrize(
    ("name", "comment", "state"),
    [
        ("squeue_by_name", "FILL4", PilotState(QUEUED, "17", "Resources")),
        ("squeue_by_name", "FILL1", PilotState(RUNNING, "14", "RUNNING")),
        ("squeue_completing", "COMPLETING", PilotState(RUNNING, "29", "COMPLETING")),
        ("squeue_many_states", "FAIL", PilotState(ENDED, "4", "FAILED NonZeroExitCode")),
        ("squeue_many_states", "BADDEP", PilotState(QUEUED, "13", "DependencyNeverSatisfied")),
        ("squeue_many_states", "CANC", PilotState(ENDED, "7", "CANCELLED")),
        ("squeue_node_fail_oom", "NODEFAIL", PilotState(ENDED, "26", "NODE_FAIL NodeDown")),
        ("squeue_node_fail_oom", "OOM", PilotState(ENDED, "28", "FAILED RaisedSignal:9(Killed)")),
        ("squeue_timeout", "NONCE1", PilotState(ENDED, "1", "TIMEOUT TimeLimit")),
        ("squeue_requeued", "REQ", PilotState(RUNNING, "27", "RUNNING")),
        ("squeue_rejected_submission", "G1", PilotState(ENDED, "58", "FAILED BadConstraints")),
        (
            "hold_nodes_drained",
            "NODEDRAIN",
            PilotState(
                QUEUED,
                "38",
                "Nodes required for job are DOWN, DRAINED or reserved for jobs in higher "
                "priority partitions",
            ),
        ),
    ],
)
def test_a_pilots_state_is_read_from_a_captured_listing(name, comment, state):
    assert as_nonces(captured(name))[comment] == state


def test_an_unknown_name_gives_a_complete_and_empty_list():
    assert Slurm().listed(captured("squeue_unknown_name")) == {}


@pytest.mark.parametrize(
    "name", ["squeue_unknown_user", "squeue_unknown_job", "down_squeue", "stopped_squeue"]
)
def test_an_error_is_not_an_empty_list(name):
    assert Slurm().listed(captured(name)) is None


LINE = f"5|RUNNING|a|b|None|{P}\n"


@pytest.mark.parametrize("cut", [LINE[:-1], LINE + "6|RUNN\n", LINE + "6|RUNNING|a", "6\n"])
def test_a_cut_list_is_no_list(cut):
    assert Slurm().listed(Captured(0, cut, "")) is None


def test_a_late_answer_is_no_list():
    assert Slurm().listed(Captured(0, LINE, "", timed_out=True)) is None


def test_an_unknown_state_stays_unknown():
    text = f"5|HIBERNATING|a|b|None|{P}\n"
    assert Slurm().listed(Captured(0, text, ""))[P].state == UNKNOWN


def test_banners_and_other_peoples_comments_are_skipped():
    text = "Welcome\n" + LINE + f"6|RUNNING|a|b|None|mine|{Q}\n7|RUNNING|a|b|None|(null)\n"
    assert list(Slurm().listed(Captured(0, text, ""))) == [P]


def test_a_comment_may_have_been_lengthened_by_a_plugin():
    text = f"5|RUNNING|a|b|None|{P},stdout=/home/a|b.out\n"
    assert list(Slurm().listed(Captured(0, text, ""))) == [P]


def test_of_a_requeued_pilot_the_living_record_counts():
    ended = f"5|FAILED|a|b|x|{P}\n"
    for text in (ended + LINE, LINE + ended):
        assert Slurm().listed(Captured(0, text, ""))[P].state == RUNNING


# ---- running -------------------------------------------------------------------------------------


def test_a_command_is_captured():
    command = batch.Command(("sh", "-c", "cat; echo bad >&2; exit 3"), b"in")
    assert batch.run(command) == Captured(3, "in", "bad\n")


def test_a_command_that_takes_too_long_is_killed_with_its_children():
    command = batch.Command(("sh", "-c", "echo early; sleep 60 & sleep 60"))
    answer = batch.run(command, timeout_s=0.3)
    assert answer.timed_out and answer.stdout == "early\n"


def test_an_outer_allocation_is_not_handed_on(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv("SLURM_CONF", "/etc/c")
    answer = batch.run(batch.Command(("sh", "-c", "echo $SLURM_JOB_ID-$SLURM_CONF-$LC_ALL")))
    assert answer.stdout == "-/etc/c-C\n"


def test_a_batch_system_of_another_version_is_refused():
    with pytest.raises(BatchError, match=r"'condor' is not in this version; it has flux, local"):
        batch.dialect("condor")
