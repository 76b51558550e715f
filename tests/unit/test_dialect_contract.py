"""What every dialect keeps, whatever the batch system: one suite for all.

The first half is text: captured outputs (data/captured, whose README tells the origin of each),
whole, cut and damaged. The names in them are made those of pilots. The second half runs the
commands against fake batch systems on PATH that really start what they are given, and lie.
"""

import errno
import json
import os
import re
import stat
import sys
import time
from pathlib import Path

import fake_batch
import pytest
from workshop import wait_until

from hpc_cluster import batch, clock
from hpc_cluster.batch import ENDED, QUEUED, RUNNING, UNKNOWN, Captured, local, nonce

TESTS = Path(__file__).parent.parent
P, Q, R = "0123456789abcdef", "f" * 16, "0" * 16
FAKED = ["flux", "lsf", "pbs", "sge", "slurm", "torque"]

pytestmark = pytest.mark.timeout(60)


def request_for(folder, pilot=P, **changes):
    request = batch.Request(
        pilot=pilot,
        name="hpcb01234567-0",
        workspace=str(folder),
        log=f"{folder}/it's a log",
        prologue="echo prologue\n",
        argv=("sleep", "60"),
        walltime_s=3601,
        warning_s=90,
        options=(),
        extra=(),
    )
    return request._replace(**changes)


def captured(system, name):
    text = (TESTS / "data" / "captured" / system / f"{name}.txt").read_text("utf-8")
    out, _, err = text.partition("# stderr\n")
    rc = int(re.search(r"(?m)^# rc (\d+)$", out).group(1))
    lines = [line for line in out.splitlines(True) if not line.startswith("#")]
    return Captured(rc, "".join(lines), err, timed_out=rc == 124)


def nonce_of(name):
    """Return a P for the name of a job in a capture."""
    return name.encode().hex().ljust(16, "0")[:16]


def long(name):
    return f"hpcb01234567-3-{nonce_of(name)}"


NAMED = {
    "pbs": ((" {:<15}", "Job_Name = {}\n"), lambda name: nonce.short_name(nonce_of(name))),
    "torque": ((" {:<15}", "Job_Name = {}\n"), lambda name: nonce.short_name(nonce_of(name))),
    "sge": (("<JB_name>{}<",), long),
    "slurm": (("|{}\n",), nonce_of),
    "lsf": (("^{}\n",), long),
    "flux": (("|{}\n",), long),
}
"""Where a listing shows what P travels in, and in what form."""


def listed(system, name, jobs=()):
    """Read a captured listing in which some jobs were given the names of pilots."""
    answer = captured(system, name)
    text = answer.stdout
    places, form = NAMED[system]
    for job in jobs:
        for place in places:
            text = text.replace(place.format(job), place.format(form(job)))
    return batch.dialect(system).listed(answer._replace(stdout=text))


# ---- submitting, as text -------------------------------------------------------------------------

SHORT = nonce.short_name(P)
WISHES = (
    ("account", "acc"),
    ("qos", "high"),
    ("partition", "gpu"),
    ("gres", "gpu:2"),
    ("memory", "32"),
    ("email", "a@b.c"),
)
QUIET = ["-o", "/dev/null", "-j", "oe", "-r", "n", "-S", "/bin/bash", "-v", f"HPC_BATCH_PILOT={P}"]
MAIL = ["-m", "a", "-M", "a@b.c"]
ARGV = {
    "pbs": [
        *["qsub", "-N", SHORT, *QUIET, "-l", "walltime=01:00:01"],
        *["-l", "select=1:ncpus=1:mem=32gb:ngpus=2", "-l", "qos=high", "-A", "acc", "-q", "gpu"],
        *[*MAIL, "-l", "place=excl", "-x"],
    ],
    "torque": [
        *["sh", "-c", 'cd "$0" && exec qsub "$@"', "/w", "-N", SHORT, *QUIET, "-l"],
        "walltime=01:00:01,nodes=1:ppn=1:gpus=2,mem=32gb,qos=high,place=excl",
        *["-A", "acc", "-q", "gpu", *MAIL, "-x", "script"],
    ],
    "sge": [
        *["qsub", "-terse", "-N", f"hpcb01234567-0-{P}", "-S", "/bin/bash", "-r", "n"],
        *["-o", "/dev/null", "-j", "y", "-notify", "-l", "h_rt=3601,s_rt=3511", "-P", "acc"],
        *["-q", "gpu", "-l", "qos=high", "-l", "mem_free=32G", "-l", "gpu=2"],
        *[*MAIL, "-l", "place=excl", "-x"],
    ],
    "lsf": [
        *["bsub", "-J", f"hpcb01234567-0-{P}", "-o", "/dev/null", "-rn", "-env", "none"],
        *["-L", "/bin/bash", "-W", "61", "-wt", "2", "-wa", "USR1", "-P", "acc", "-q", "gpu"],
        *["-sla", "high", "-gpu", "num=2", "-M", "32GB", "-R", "rusage[mem=32GB]"],
        *["-Ne", "-u", "a@b.c", "-l", "place=excl", "-x"],
    ],
    "flux": [
        *["flux", "submit", "--ntasks=1", f"--job-name=hpcb01234567-0-{P}"],
        *["--time-limit=3601s", "--signal=USR1@90s", "--output=/dev/null", "--error=/dev/null"],
        *["--cwd=/w", "--env=-*", "--env=HOME", "--env=USER", "--env=LOGNAME", "--env=PATH"],
        *["--bank=acc", "--queue=gpu", "--setattr=system.qos=high", "-g2"],
        *["-l", "place=excl", "-x", "/bin/bash", "-lc"],
    ],
}
SCRIPT = """\
#!/bin/bash
exec >>'/w/it'"'"'s a log' 2>&1
cd /w || exit
export HPC_BATCH_END_TIME=$(($(date +%s) + 3601))
echo prologue
exec sleep 60
"""


@pytest.mark.parametrize("system", sorted(ARGV))
def test_a_submission_says_everything_that_was_wished(system):
    request = request_for("/w", options=WISHES, extra=("-l", "place=excl", "-x"))
    command = batch.dialect(system).submit(request)
    text = SCRIPT
    if system == "torque":
        text = text.replace("bash\n", "bash\n#SBATCH --signal=B:USR1@90\n", 1)
    if system == "flux":
        assert list(command.argv) == [*ARGV[system], text] and command.stdin == b""
    else:
        assert (list(command.argv), command.stdin.decode()) == (ARGV[system], text)
    assert command.script_file == ("/w/script" if system == "torque" else None)


@pytest.mark.parametrize("system", FAKED)
def test_nothing_that_was_not_wished_is_asked_for(system):
    options = tuple((key, "") for key, _ in WISHES)
    argv = batch.dialect(system).submit(request_for("/w", options=options)).argv
    assert argv == batch.dialect(system).submit(request_for("/w")).argv
    told = " ".join(argv[: -1 if system == "flux" else None])
    for word in ("gpu", "gres", "mem", "select", "nodes", "-q ", "--queue", "-A ", "-P ", "qos"):
        assert word not in told


@pytest.mark.parametrize(
    ("system", "words"),
    [
        ("pbs", "select=1:ncpus=1:ngpus=1:gpu_model=v100"),
        ("torque", "nodes=1:ppn=1:ngpus=1:gpu_model=v100"),
        ("sge", "-l ngpus=1:gpu_model=v100"),
        ("lsf", "-gpu ngpus=1:gpu_model=v100"),
        ("flux", "--requires=ngpus=1:gpu_model=v100"),
        ("slurm", "--gres=ngpus=1:gpu_model=v100"),
    ],
)
def test_resources_in_the_systems_own_words_are_passed_on(system, words):
    options = (("gres", "ngpus=1:gpu_model=v100"),)
    argv = batch.dialect(system).submit(request_for("/w", options=options)).argv
    assert words in " ".join(argv)


@pytest.mark.parametrize("options", [("-lnodes=2", "-W", "x"), ("-l", "nodes=2", "-W", "x")])
def test_slurms_qsub_gets_one_l_because_only_the_last_counts(options):
    argv = batch.dialect("torque").submit(request_for("/w", extra=options)).argv
    assert [w for w in argv if w.startswith("-l")] == ["-l"]
    assert argv[argv.index("-l") + 1] == "walltime=01:00:01,nodes=2" and "-W" in argv


@pytest.mark.parametrize("pilot", [P, Q, R])
def test_a_pilot_is_known_by_its_name_within_15_characters(pilot):
    name = nonce.short_name(pilot)
    assert len(name) == 15 and name[0].isalpha() and nonce.from_short(name) == pilot


@pytest.mark.parametrize("name", ["hb", "hb" + "7" * 13, "hb" + "a" * 12, "hb" + "a" * 12 + "1"])
def test_other_names_are_no_pilots(name):
    assert nonce.from_short(name) is None
    assert nonce.from_long(name) is None


@pytest.mark.parametrize(
    ("system", "name", "native_id"),
    [
        ("slurm", "sbatch_parsable", "1"),
        ("torque", "qsub_basic", "42"),
        ("torque", "qsub_with_spank_pbs", "50"),
        ("sge", "qsub_terse", "1"),
        ("sge", "qsub_stdin_ac", "20"),
        ("sge", "qsub_default_output", "21"),
        ("pbs", "qsub", "1234.pbs01"),
        ("lsf", "bsub", "1234"),
        ("lsf", "bsub_default", "1235"),
        ("flux", "submit", "6731191091817518"),
        ("flux", "submit_utf8", "6731191091817518"),
    ],
)
def test_an_acknowledged_submission_has_its_id(system, name, native_id):
    answer = captured(system, name)
    dialect = batch.dialect(system)
    assert dialect.submitted(answer) == batch.Submitted(native_id)
    among = answer._replace(stdout=fake_batch.BANNER + answer.stdout, stderr="Welcome!\n")
    assert dialect.submitted(among) == batch.Submitted(native_id)


@pytest.mark.parametrize(
    ("system", "name", "words"),
    [
        ("slurm", "sbatch_bad_partition", "Invalid partition name specified"),
        ("slurm", "down_sbatch", "(connect failure)"),
        ("torque", "qsub_bad_queue", "invalid partition specified: nope"),
        ("torque", "qsub_missing_script", "Unable to open file nosuch.sh"),
        ("torque", "qsub_C_k_z", "additional_attributes"),
        ("sge", "qsub_missing_script", "Unable to read script file"),
        ("sge", "qsub_unknown_queue", 'unknown queue "nope.q"'),
        ("sge", "qsub_unknown_resource", 'unknown resource "nosuch"'),
        ("sge", "qsub_unknown_pe", '"nope" does not exist'),
        ("sge", "qsub_pe_too_many_wv", "no suitable queues"),
        ("sge", "down_qsub", "unable to send message to qmaster"),
        ("pbs", "qsub_unknown_queue", "Unknown queue"),
        ("pbs", "qsub_bad_resource", "Resource_List.select"),
        ("pbs", "qsub_not_authorized", "No active allocation found for nope"),
        ("pbs", "qsub_down", "cannot connect to server pbs01"),
        ("lsf", "bsub_no_queue", "No such queue"),
        ("lsf", "bsub_esub", "you must specify a project"),
        ("flux", "submit_bad_queue", "Invalid queue 'nope'"),
        ("flux", "submit_infeasible", "unsatisfiable request"),
        ("flux", "submit_down", "Unable to connect to Flux"),
    ],
)
def test_a_refusal_is_told_in_the_systems_own_words(system, name, words):
    answer = batch.dialect(system).submitted(captured(system, name))
    assert isinstance(answer, batch.Refused) and words in answer.message


@pytest.mark.parametrize(
    ("system", "name"),
    [
        ("slurm", "stopped_sbatch"),
        ("slurm", "reply_delayed_sbatch"),
        ("pbs", "qsub_premature_end"),
        ("lsf", "bsub_timeout"),
        ("lsf", "bsub_255"),
        ("flux", "submit_timeout"),
    ],
)
def test_a_lost_answer_stays_unclear(system, name):
    assert isinstance(batch.dialect(system).submitted(captured(system, name)), batch.Unclear)


def test_a_lost_answer_stays_unclear_behind_slurms_wrappers():
    text = captured("torque", "qsub_bad_queue").stdout
    lost = text.replace("Invalid partition name specified", "Socket timed out on send/recv")
    lost = lost.replace("'sbatch: error: invalid partition specified: nope\n ", "'")
    answer = batch.dialect("torque").submitted(Captured(1, lost, ""))
    assert isinstance(answer, batch.Unclear) and "Socket timed out" in answer.message


@pytest.mark.parametrize("system", FAKED)
@pytest.mark.parametrize(
    "answer",
    [
        Captured(0, "", ""),
        Captured(0, "Welcome to the cluster\n", ""),
        Captured(0, "\ufffd\ufffd\n", ""),
        Captured(0, "17", "", timed_out=True),
        Captured(-9, "", ""),
        Captured(137, "", "Killed\n"),
        Captured(1, "", ""),
        Captured(1, "17\n", "something new\n"),
    ],
)
def test_what_is_not_understood_stays_unclear(system, answer):
    assert isinstance(batch.dialect(system).submitted(answer), batch.Unclear)


@pytest.mark.parametrize("system", FAKED)
def test_a_missing_program_is_a_refusal(system):
    answer = batch.dialect(system).submitted(batch.run(batch.Command(("/no/such/program",))))
    assert isinstance(answer, batch.Refused) and "No such file or directory" in answer.message


# ---- listing, as text ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("system", "name", "job", "state"),
    [
        ("slurm", "squeue_by_name", "FILL1", (RUNNING, "14", "RUNNING", None)),
        ("slurm", "squeue_timeout", "NONCE1", (ENDED, "1", "TIMEOUT TimeLimit", None)),
        ("torque", "qstat", "trun", (RUNNING, "47", "R", None)),
        ("torque", "qstat", "theld", (QUEUED, "48", "Q", None)),
        ("torque", "qstat", "h5", (ENDED, "41", "C", None)),
        ("torque", "qstat_u", "trun", (RUNNING, "47", "R", None)),
        ("torque", "qstat_u", "fromdirective", (ENDED, "45", "C", None)),
        ("torque", "qstat_a", "theld", (QUEUED, "48", "Q", None)),
        ("torque", "qstat_n1", "trun", (RUNNING, "47", "R", None)),
        ("torque", "qstat_f_running", "trun", (RUNNING, "47", "R", "n1")),
        ("torque", "qstat_f_held", "theld", (QUEUED, "48", "Q", None)),
        ("torque", "qstat_f_failed", "tfail", (ENDED, "53", "C", "n2")),
        ("torque", "qstat_f_deleted", "trun", (ENDED, "47", "C", "n1")),
        ("sge", "qstat_mixed_xml", "srt", (RUNNING, "5", "r", "sge1")),
        ("sge", "qstat_mixed_xml", "pe2", (QUEUED, "8", "qw", None)),
        ("sge", "qstat_eqw_xml", "eqw", (QUEUED, "13", "Eqw", None)),
        ("sge", "qstat_eqw_xml", "held", (QUEUED, "7", "hqw", None)),
        (
            "pbs",
            "qstat_x_s_w_u",
            "ended",
            (ENDED, "1230.pbs01", "Job run at Fri Nov 20 at 11:12 on (n1:ncpus=1) and finished"),
        ),
        (
            "pbs",
            "qstat_x_s_w_u",
            "waiting",
            (
                *(QUEUED, "1233.pbs01"),
                "Not Running: Insufficient amount of resource: ngpus (R: 1 A: 0 T: 4)",
            ),
        ),
        ("pbs", "qstat_x_s_w_u", "held", (QUEUED, "1234.pbs01", "H")),
        (
            "pbs",
            "qstat_x_s_w_u",
            "exiting",
            (RUNNING, "1235", "Job run at Fri Nov 20 at 11:14 on (n1:ncpus=1)"),
        ),
        (
            "pbs",
            "qstat_x_s_w_u",
            "moved",
            (UNKNOWN, "1237.pbs01", "Job has been moved to server pbs02"),
        ),
        ("pbs", "qstat_f", "running", (RUNNING, "1232.pbs01", "R", "n1")),
        (
            "pbs",
            "qstat_f",
            "ended",
            (
                *(ENDED, "1230.pbs01"),
                "Job run at Fri Nov 20 at 11:12 on (n1:ncpus=1) and failed",
                "n1",
            ),
        ),
        (
            "pbs",
            "qstat_f",
            "waiting",
            (
                *(QUEUED, "1233.pbs01"),
                "Not Running: Insufficient amount of resource: ngpus (R: 1 A: 0 T:4)",
            ),
        ),
        ("lsf", "bjobs", "running", (RUNNING, "1240", "RUN", "n1")),
        (
            "lsf",
            "bjobs",
            "waiting",
            (
                *(QUEUED, "1241"),
                "Resource (ngpus_physical) limit defined on queue has been reached;",
            ),
        ),
        ("lsf", "bjobs", "suspended", (RUNNING, "1243", "USUSP", "n1")),
        ("lsf", "bjobs", "preempted", (RUNNING, "1244", "SSUSP", "4*n1:4*n2")),
        ("lsf", "bjobs", "done", (ENDED, "1245", "DONE exit code 0", "n1")),
        ("lsf", "bjobs", "exited", (ENDED, "1246", "EXIT exit code 140", "n1")),
        ("lsf", "bjobs", "unknown", (UNKNOWN, "1247", "UNKWN", "n3")),
        ("lsf", "bjobs", "zombie", (UNKNOWN, "1248", "ZOMBI", "n3")),
        ("flux", "jobs", "waiting", (QUEUED, "6731191091817518", "insufficient resources")),
        ("flux", "jobs", "depending", (QUEUED, "6731191091817519", "DEPEND")),
        ("flux", "jobs", "running", (RUNNING, "6731191091817520", "RUN", "n[1-2]")),
        ("flux", "jobs", "cleaning", (RUNNING, "6731191091817521", "COMPLETED exit code 0", "n1")),
        ("flux", "jobs", "failed", (ENDED, "6731191091817523", "FAILED exit code 1", "n1")),
        ("flux", "jobs", "canceled", (ENDED, "6731191091817525", "CANCELED exit code -128")),
    ],
)
def test_a_pilots_state_is_read_from_a_listing(system, name, job, state):
    assert listed(system, name, [job]) == {nonce_of(job): batch.PilotState(*state)}


def test_what_grid_engine_transfers_or_deletes_is_alive():
    answer = captured("sge", "qstat_running_transferring_xml")
    text = re.sub("<JB_name>j.sh<", f"<JB_name>{long('j')}<", answer.stdout)
    for letters in ("t", "dr", "dt", "s", "S", "T", "Rr", "dRs"):
        found = batch.dialect("sge").listed(Captured(0, text.replace(">t<", f">{letters}<"), ""))
        assert found[nonce_of("j")].state == RUNNING


@pytest.mark.parametrize(
    ("system", "name"),
    [
        ("slurm", "squeue_by_name"),
        ("torque", "qstat"),
        ("torque", "qstat_u"),
        ("torque", "qstat_f_running"),
        ("sge", "qstat_mixed_xml"),
        ("pbs", "qstat_x_s_w_u"),
        ("pbs", "qstat_f"),
        ("lsf", "bjobs"),
        ("flux", "jobs"),
    ],
)
def test_jobs_that_are_no_pilots_are_nobodys(system, name):
    assert listed(system, name) == {}


@pytest.mark.parametrize(
    ("system", "name"),
    [
        ("slurm", "squeue_unknown_name"),
        ("torque", "qstat_empty_user"),
        ("sge", "qstat_empty"),
        ("lsf", "bjobs_none"),
        ("lsf", "bjobs_none_unfinished"),
    ],
)
def test_an_empty_list_is_complete(system, name):
    assert listed(system, name) == {}


@pytest.mark.parametrize(
    ("system", "name"),
    [
        ("slurm", "squeue_unknown_user"),
        ("slurm", "stopped_squeue"),
        ("torque", "qstat_f_unknown"),
        ("torque", "qstat_f_x"),
        ("torque", "qstat_q"),
        ("sge", "down_qstat"),
        ("sge", "qstat_empty_plain"),
        ("sge", "qstat_after_qdel_notify"),
        ("pbs", "qstat_no_history"),
        ("pbs", "qstat_down"),
        ("lsf", "bjobs_down"),
        ("flux", "jobs_down"),
    ],
)
def test_an_error_is_not_an_empty_list(system, name):
    assert listed(system, name) is None


def name_of(system, pilot):
    request = request_for("/w", pilot)
    return nonce.short_name(pilot) if system in ("pbs", "torque") else nonce.long_name(request)


def row(system, number, pilot, word):
    """Return what a listing shows of a pilot; word: queued, running, ended, or the system's own."""
    word = fake_batch.WORDS.get(system, {}).get(word, word)
    if system == "local":
        return f"{pilot} {number}.1.boot {word}\n"
    job = {"id": fake_batch.native_id(system, number), "comment": pilot}
    job["name"] = name_of(system, pilot)
    return fake_batch.ROW[system](job, word)


def frame(system, rows):
    return rows + "end\n" if system == "local" else fake_batch.FRAME[system](rows)


def states(system, text):
    found = batch.dialect(system).listed(Captured(0, text, ""))
    return None if found is None else {pilot: one.state for pilot, one in found.items()}


ENDS = [s for s in batch.DIALECTS if s != "sge"]
"""Grid Engine lists nothing that has ended."""


@pytest.mark.parametrize("system", batch.DIALECTS)
def test_a_list_tells_queued_running_and_ended_apart(system):
    words = {P: QUEUED, Q: RUNNING, R: ENDED}
    if system not in ENDS:
        del words[R]
    if system == "local":
        del words[P]
    rows = [row(system, n, pilot, word) for n, (pilot, word) in enumerate(words.items(), 1)]
    assert states(system, frame(system, "".join(rows))) == words
    assert states(system, frame(system, "".join(reversed(rows)))) == words


@pytest.mark.parametrize("system", FAKED)
@pytest.mark.parametrize("word", ["Y", "Z"])
def test_a_state_of_a_later_version_stays_unknown(system, word):
    text = frame(system, row(system, 1, P, word) + row(system, 2, Q, "running"))
    assert states(system, text) == {P: UNKNOWN, Q: RUNNING}


@pytest.mark.parametrize("system", FAKED)
def test_other_peoples_jobs_do_no_harm_whatever_their_names(system):
    rows = row(system, 1, P, "running")
    for number, name in enumerate(["x", "\ufffd\ufffd", "a|b^c", "R", "hpcb-0", "end", "\x07"], 2):
        job = {"id": fake_batch.native_id(system, number), "name": name, "comment": name}
        rows += fake_batch.ROW[system](job, fake_batch.WORDS[system]["queued"])
    assert states(system, frame(system, rows)) == {P: RUNNING}


@pytest.mark.parametrize("system", FAKED)
def test_banners_around_a_list_are_skipped(system):
    text = fake_batch.BANNER + frame(system, row(system, 1, P, "running"))
    assert states(system, text) == {P: RUNNING}


@pytest.mark.parametrize("system", batch.DIALECTS)
def test_a_list_that_is_cut_anywhere_is_never_believed_to_say_more(system):
    rows = [row(system, 1, P, "running"), row(system, 2, Q, "running")]
    text = frame(system, "".join(rows))
    whole = {P: RUNNING, Q: RUNNING}
    assert states(system, text) == whole
    for length in range(1, len(text) - 1):
        found = states(system, text[:length])
        if found is not None:
            # Only where a line ends can a cut go unseen; then the rest is right all the same.
            assert text[length - 1] == "\n" and system not in ("local", "sge")
            assert found.items() <= whole.items()


@pytest.mark.parametrize("system", batch.DIALECTS)
def test_late_and_failed_lists_say_nothing(system):
    dialect = batch.dialect(system)
    text = frame(system, row(system, 1, P, "running"))
    assert dialect.listed(Captured(0, text, "", timed_out=True)) is None
    for rc in (1, 127, 153, 255, -9):
        assert dialect.listed(Captured(rc, text, "")) is None
        assert dialect.listed(Captured(rc, "", "")) is None


@pytest.mark.parametrize("system", batch.DIALECTS)
def test_silence_is_an_empty_list_only_where_the_system_is_silent_about_one(system):
    silent = system in ("slurm", "pbs", "torque", "flux")
    assert batch.dialect(system).listed(Captured(0, "", "")) == ({} if silent else None)


@pytest.mark.parametrize("system", batch.DIALECTS)
def test_garbage_is_not_a_pilot(system):
    for text in ("\ufffd\x00\x01\n", "<?xml version='1.0'?>\n<job_info>\n", "a^b|c\n", "0\n"):
        assert not batch.dialect(system).listed(Captured(0, text, ""))


def test_a_pilot_may_have_been_started_by_a_program_that_was_killed():
    for rc, text in ((-9, ""), (0, "")):
        assert isinstance(batch.dialect("local").submitted(Captured(rc, text, "")), batch.Unclear)


def test_a_table_of_files_that_is_full_is_no_death(monkeypatch):
    known = local.native_id(os.getpid())

    def full(*args, **keys):
        raise OSError(errno.EMFILE, "Too many open files")

    def say(what):
        with monkeypatch.context() as machine:
            machine.setattr("builtins.open", what)
            return local.main(["list", f"{'a' * 16}={known}"])

    boot = clock.boot()
    monkeypatch.setattr(clock, "boot", lambda: boot)
    assert say(open) == 0
    with pytest.raises(OSError, match="Too many"):
        say(full)


# ---- running -------------------------------------------------------------------------------------


@pytest.fixture
def system(request, tmp_path, monkeypatch):
    """One batch system, faked on PATH but for local; its name."""
    memory = tmp_path / "memory"
    memory.mkdir()
    monkeypatch.setenv("PATH", f"{TESTS / 'fakebin'}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_BATCH", str(memory))
    monkeypatch.setenv("FAKE_SYSTEM", request.param)
    yield request.param
    for pid in pids(memory):
        wait_until(lambda pid=pid: clock.process_start(pid) is None)


def pids(memory):
    jobs = [json.loads(path.read_text()) for path in memory.iterdir()]
    return [job["pid"] for job in jobs if job["pid"]]


def every(names):
    return pytest.mark.parametrize("system", names, indirect=True)


def submit(system, request, timeout_s=30):
    dialect = batch.dialect(system)
    return dialect.submitted(batch.run(dialect.submit(request), timeout_s))


def look(system, *wanted, timeout_s=30):
    dialect = batch.dialect(system)
    return dialect.listed(batch.run(dialect.query(wanted), timeout_s))


def end(system, native_id):
    """Cancel a batch job and wait until it is seen to be over."""
    batch.run(batch.dialect(system).cancel(native_id))
    wanted = batch.Wanted(P, "hpcb01234567-0", native_id)

    def over():
        state = look(system, wanted).get(P)
        return state is None or state.state == ENDED

    wait_until(over, 20)


@every(batch.DIALECTS)
def test_what_was_submitted_is_listed_and_can_be_cancelled(system, tmp_path):
    answer = submit(system, request_for(tmp_path))
    assert isinstance(answer, batch.Submitted)
    found = look(system, batch.Wanted(P, "hpcb01234567-0", answer.native_id))
    assert found[P].state == RUNNING and found[P].native_id == answer.native_id
    wait_until(lambda: (tmp_path / "it's a log").exists())
    end(system, answer.native_id)


@every(batch.DIALECTS)
def test_a_pilot_without_an_id_is_found_by_its_nonce(system, tmp_path):
    runner = (sys.executable, "-c", "import time; time.sleep(60)", "--pilot", P)
    answer = submit(system, request_for(tmp_path, argv=runner))
    found = look(system, batch.Wanted(P, "hpcb01234567-0", None))
    assert found[P].native_id == answer.native_id
    end(system, answer.native_id)


@every(FAKED)
def test_the_script_appends_to_its_log_and_knows_its_folder_and_its_end(system, tmp_path):
    log = tmp_path / "it's a log"
    log.write_text("before\n")
    told = ("sh", "-c", "pwd; echo ${HPC_BATCH_END_TIME:-none}; echo bad >&2")
    submit(system, request_for(tmp_path, argv=told))
    wait_until(lambda: "bad" in log.read_text())
    first, prologue, folder, until, bad = log.read_text().splitlines()
    assert (first, prologue, folder, bad) == ("before", "prologue", str(tmp_path), "bad")
    assert 3500 < int(until) - time.time() <= 3602


@every(FAKED)
def test_the_pilot_learns_its_id_from_its_environment(system, tmp_path):
    log = tmp_path / "it's a log"
    answer = submit(system, request_for(tmp_path, argv=("env", "-0")))
    wait_until(lambda: log.exists() and "PATH=" in log.read_text())
    pairs = [v.split("=", 1) for v in log.read_text().split("prologue\n")[1].split("\0")[:-1]]
    assert batch.own_id(dict(pairs)) == answer.native_id


@pytest.mark.parametrize(
    ("environment", "native_id"),
    [
        ({}, None),
        ({"JOB_ID": "7"}, None),
        ({"JOB_ID": "7", "SGE_TASK_ID": "undefined"}, "7"),
        ({"SLURM_JOB_ID": "7", "PBS_JOBID": "8"}, "7"),
        ({"PBS_JOBID": "8.pbs01"}, "8.pbs01"),
        ({"LSB_JOBID": "9"}, "9"),
        ({"FLUX_JOB_ID": "\u0192uZZybuNNy"}, "6731191091817518"),
        ({"FLUX_JOB_ID": "\udcc6\udc92uZZybuNNy"}, "6731191091817518"),
        ({"FLUX_JOB_ID": "fuZZybuNNy"}, "6731191091817518"),
        ({"FLUX_JOB_ID": "0x17"}, None),
    ],
)
def test_the_environment_of_an_allocation_tells_the_id(environment, native_id):
    assert batch.own_id(environment) == native_id


def test_an_outer_allocation_of_any_kind_is_not_handed_on(monkeypatch):
    inner = "PBS_JOBID PBS_O_PATH JOB_ID SGE_TASK_ID LSB_JOBID FLUX_JOB_ID HPC_BATCH_END_TIME"
    outer = "PBS_SERVER SGE_ROOT SGE_CELL LSF_ENVDIR FLUX_URI SLURM_CONF"
    for name in (inner + " " + outer).split():
        monkeypatch.setenv(name, "x")
    told = batch.run(batch.Command(("env",))).stdout
    assert not [name for name in inner.split() if f"{name}=" in told]
    assert not [name for name in outer.split() if f"{name}=x\n" not in told]


def test_a_script_for_a_file_is_private_and_whole(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    command = batch.dialect("torque").submit(request_for(tmp_path))
    assert batch.run(command).rc == batch.NOT_FOUND
    script = tmp_path / "script"
    assert script.read_bytes() == command.stdin
    assert stat.S_IMODE(script.stat().st_mode) == 0o700


@every(FAKED)
@pytest.mark.parametrize("how", ["refuse", "away"])
def test_a_refused_submission_leaves_nothing(system, how, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_SUBMIT", how)
    assert isinstance(submit(system, request_for(tmp_path)), batch.Refused)
    assert look(system, batch.Wanted(P, "hpcb01234567-0", None)) == {}


@every(FAKED)
@pytest.mark.parametrize("how", ["ghost", "mute", "late"])
def test_a_submission_without_a_clear_answer_is_found(system, how, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_SUBMIT", how)
    answer = submit(system, request_for(tmp_path), timeout_s=1 if how == "late" else 30)
    assert isinstance(answer, batch.Unclear)
    found = look(system, batch.Wanted(P, "hpcb01234567-0", None))
    assert found[P].state == RUNNING
    end(system, found[P].native_id)


@every(FAKED)
def test_a_lost_submission_is_in_no_list(system, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_SUBMIT", "lost")
    assert isinstance(submit(system, request_for(tmp_path)), batch.Unclear)
    assert look(system, batch.Wanted(P, "hpcb01234567-0", None)) == {}


@every(FAKED)
def test_an_id_and_a_list_among_banners_are_found(system, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_SUBMIT", "banner")
    monkeypatch.setenv("FAKE_LIST", "banner")
    answer = submit(system, request_for(tmp_path))
    found = look(system, batch.Wanted(P, "hpcb01234567-0", None))
    assert found[P].native_id == answer.native_id
    end(system, answer.native_id)


@every(FAKED)
@pytest.mark.parametrize("how", ["away", "cut", "late"])
def test_a_query_without_a_whole_answer_says_nothing(system, how, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_SUBMIT", "hold")
    submit(system, request_for(tmp_path))
    wanted = batch.Wanted(P, "hpcb01234567-0", None)
    assert look(system, wanted)[P].state == QUEUED
    monkeypatch.setenv("FAKE_LIST", how)
    assert look(system, wanted, timeout_s=1) is None


@every(["pbs"])
def test_an_old_pbs_is_asked_in_another_way(system, tmp_path, monkeypatch):
    answer = submit(system, request_for(tmp_path))
    monkeypatch.setenv("FAKE_LIST", "old")
    found = look(system, batch.Wanted(P, "hpcb01234567-0", None))
    assert found[P] == batch.PilotState(RUNNING, answer.native_id, fake_batch.REASON)
    end(system, answer.native_id)
