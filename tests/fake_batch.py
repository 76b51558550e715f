"""Fake batch systems for tests: each really starts its pilots, in the background, and can lie.

The programs in fakebin/ are named like the real ones and say what the real ones say; everything
they do is here. Their memory is the folder $FAKE_BATCH, one file for each batch job;
$FAKE_BATCH.calls counts the queries. qsub, qstat and qdel belong to several batch systems:
$FAKE_SYSTEM says which (pbs, torque, sge).

$FAKE_SUBMIT tells how submitting goes:

    hold      it stays queued for ever        refuse    it is refused
    away      nobody is there to take it      lost      an unclear complaint; not taken
    ghost     the same complaint; taken       mute      taken; no id is printed
    banner    taken; the id among banners     late      taken; the answer takes longer
    hang      it never answers

$FAKE_LIST tells how listing goes:

    away      an error                        cut       the answer ends in the middle of a line
    purge     what has ended is forgotten     blind     nothing is listed
    banner    the list among banners          late      the answer takes longer
    hang      it never answers
    old       PBS without history or wide tables: only `qstat -f` works

$FAKE_LATE_S: how many seconds longer a late answer takes (2).
$FAKE_CANCEL = hang: ending a pilot never answers; $FAKE_BATCH.cancels counts the tries.

The texts are those of the real systems where data/captured holds them; its README says where not.
"""

import json
import os
import signal
import subprocess
import sys
import time

LATE_S = float(os.environ.get("FAKE_LATE_S", "2"))

HANG_S = 600.0

JUDGES = ("LD_PRELOAD", "JUDGE")
"""What makes calls of programs fail (`preload`) does so in pilots, too."""

BANNER = "*** Welcome to the cluster ***\nMaintenance on day 12: 3 jobs of yours will wait\n"

REFUSAL = {
    "slurm": "sbatch: error: Batch job submission failed: "
    "Invalid account or account/partition combination specified",
    "pbs": "qsub: Unknown queue",
    "torque": "qsub: submit error (Unknown queue MSG=cannot locate queue)",
    "sge": 'Unable to run job: Job was rejected because job requests unknown queue "nope.q"\n'
    "Exiting.",
    "lsf": "nope: No such queue. Job not submitted.",
    "flux": "flux-submit: ERROR: [Errno 22] Invalid queue 'nope' specified",
}

AWAY = {
    "slurm": "sbatch: error: Batch job submission failed: "
    "Unable to contact slurm controller (connect failure)",
    "pbs": "Connection refused\nqsub: cannot connect to server pbs01 (errno=111)",
    "torque": "qsub: cannot connect to server torque01 (errno=111) Connection refused",
    "sge": "error: commlib error: got select error (Connection refused)\n"
    "Unable to run job: unable to send message to qmaster using port 6444 on host "
    '"sge1": got send error\nExiting.',
    "lsf": "Failed in an LSF library call: LIM is down; try later. Job not submitted.",
    "flux": "flux-submit: ERROR: Unable to connect to Flux: ENOENT: No such file or directory",
}

LOST = {
    "slurm": "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation",
    "pbs": "qsub: Premature end of message",
    "torque": "qsub: End of File",
    "sge": "Unable to run job: failed receiving gdi request response for mid=1 "
    "(got syncron message receive timeout error)\nExiting.",
    "lsf": "Failed in an LSF library call: Communication time out. Job not submitted.",
    "flux": "flux-submit: ERROR: [Errno 110] Connection timed out",
}

LIST_AWAY = {
    "slurm": (1, "slurm_load_jobs error: Socket timed out on send/recv operation"),
    "pbs": (255, "Connection refused\nqstat: cannot connect to server pbs01 (errno=111)"),
    "torque": (111, "qstat: cannot connect to server torque01 (errno=111) Connection refused"),
    "sge": (1, "error: commlib error: got select error (Connection refused)"),
    "lsf": (255, "Failed in an LSF library call: LIM is down; try later"),
    "flux": (1, "flux-jobs: ERROR: Unable to connect to Flux: ENOENT: No such file or directory"),
}

WORDS = {
    "slurm": {"queued": "PENDING", "running": "RUNNING", "ended": "FAILED"},
    "pbs": {"queued": "Q", "running": "R", "ended": "F"},
    "torque": {"queued": "Q", "running": "R", "ended": "C"},
    "sge": {"queued": "qw", "running": "r", "ended": ""},
    "lsf": {"queued": "PEND", "running": "RUN", "ended": "EXIT"},
    "flux": {"queued": "SCHED", "running": "RUN", "ended": "INACTIVE"},
}
"""How each calls a job that waits, runs, has ended; Grid Engine has no word for the last."""

REASON = "Not Running: Insufficient amount of resource: ngpus"

ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


# ---- submitting ----------------------------------------------------------------------------------


def submit(system, argv):
    """Be the submit command; return the exit code."""
    mode = os.environ.get("FAKE_SUBMIT", "")
    if mode == "hang":
        time.sleep(HANG_S)
    job = READ[system](argv)
    for way, texts in (("refuse", REFUSAL), ("away", AWAY), ("lost", LOST)):
        if mode == way:
            return complain(1, texts[system])
    memory = os.environ["FAKE_BATCH"]
    number = len(os.listdir(memory)) + 1
    job.update(id=native_id(system, number), number=number, argv=argv, pid=None)
    script = job.pop("text")
    if mode != "hold":
        job["pid"] = start(system, job, script)
    with open(os.path.join(memory, str(number)), "w") as file:
        json.dump(job, file)
    if mode == "ghost":
        return complain(255 if system == "lsf" else 1, LOST[system])
    if mode == "late":
        time.sleep(LATE_S)
    if mode != "mute":
        print((BANNER if mode == "banner" else "") + told(system, job))
    return 0


def read_sbatch(argv):
    """Return what sbatch is asked for."""
    options = dict(word[2:].split("=", 1) for word in argv if "=" in word)
    return {
        "name": options["job-name"],
        "comment": options["comment"],
        "log": options["output"].replace("%%", "%"),
        "cwd": options["chdir"],
        "text": sys.stdin.read(),
    }


def read_qsub(argv):
    """Return what qsub is asked for, the script on standard input."""
    return {"name": argv[argv.index("-N") + 1], "text": sys.stdin.read()}


def read_torque(argv):
    """Return what qsub of Slurm's wrappers is asked for: it wants a file, and one -l."""
    if argv.count("-l") != 1 or not os.path.isfile(argv[-1]):
        sys.exit(complain(2, "Usage:\n    qsub [-a start_time] [-A account] ... [script]"))
    with open(argv[-1]) as file:
        return {"name": argv[argv.index("-N") + 1], "text": file.read()}


def read_bsub(argv):
    """Return what bsub is asked for."""
    return {"name": argv[argv.index("-J") + 1], "text": sys.stdin.read()}


def read_flux(argv):
    """Return what flux submit is asked for: the script is an argument."""
    options = dict(word[2:].split("=", 1) for word in argv if word.startswith("--") and "=" in word)
    assert argv[-3:-1] == ["/bin/bash", "-lc"]
    return {"name": options["job-name"], "text": argv[-1]}


READ = {
    "slurm": read_sbatch,
    "pbs": read_qsub,
    "torque": read_torque,
    "sge": read_qsub,
    "lsf": read_bsub,
    "flux": read_flux,
}


def native_id(system, number):
    """Return the id as lists show it."""
    return {"pbs": f"{number}.pbs01", "flux": str(number << 24)}.get(system, str(number))


def f58(number):
    """Return a number as Flux prints it where the locale is plain."""
    digits = ""
    while number:
        number, digit = divmod(number, 58)
        digits = ALPHABET[digit] + digits
    return "f" + digits


def told(system, job):
    """Return what the submit command prints."""
    if system == "lsf":
        return f"Job <{job['id']}> is submitted to default queue <normal>."
    return f58(int(job["id"])) if system == "flux" else job["id"]


def start(system, job, script):
    """Run a script in the background, as this system's daemon would; return its pid."""
    own = {
        "slurm": {"SLURM_JOB_ID": job["id"]},
        "pbs": {"PBS_JOBID": job["id"]},
        "torque": {"PBS_JOBID": job["id"]},
        "sge": {"JOB_ID": job["id"], "SGE_TASK_ID": "undefined"},
        "lsf": {"LSB_JOBID": job["id"]},
        "flux": {"FLUX_JOB_ID": f58(job["number"] << 24)},
    }
    known = ("HOME", "PATH", "USER", *JUDGES)
    kept = {name: os.environ[name] for name in known if name in os.environ}
    with open(job.get("log", os.devnull), "ab") as log:
        process = subprocess.Popen(
            ["/bin/bash", "-c", script],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=job.get("cwd", "/"),
            env=dict(kept, **own[system]),
            start_new_session=True,
        )
    process.returncode = 0  # it is meant to outlive us
    return process.pid


# ---- listing -------------------------------------------------------------------------------------


def listing(system, argv):
    """Be the query command; return the exit code."""
    mode = os.environ.get("FAKE_LIST", "")
    memory = os.environ["FAKE_BATCH"]
    with open(memory + ".calls", "a") as calls:
        calls.write("listed\n")
    if mode == "hang":
        time.sleep(HANG_S)
    if mode == "away":
        return complain(*LIST_AWAY[system])
    if mode == "old" and "-f" not in argv:
        return complain(2, "qstat: invalid option -- 'w'")
    if mode == "late":
        time.sleep(LATE_S)
    rows = []
    for name in sorted(os.listdir(memory), key=int):
        with open(os.path.join(memory, name)) as file:
            job = json.load(file)
        state = "queued" if job["pid"] is None else "running" if lives(job["pid"]) else "ended"
        if mode == "blind" or not asked(system, argv, job):
            continue
        if state == "ended" and (mode == "purge" or not WORDS[system][state]):
            continue
        long = row_of_block if "-f" in argv else ROW[system]
        rows.append(long(job, WORDS[system][state]))
    text = "".join(rows) if "-f" in argv else FRAME[system]("".join(rows))
    if not rows and system == "lsf":
        return complain(255, "No job found")
    text = (BANNER if mode == "banner" else "") + text
    sys.stdout.write(text[: -max(20, len(text) // 9)] if mode == "cut" else text)
    return 0


def asked(system, argv, job):
    """Tell whether a query concerns a job: squeue is asked by name."""
    if system != "slurm":
        return True
    names = [word.split("=", 1)[1] for word in argv if word.startswith("--name=")]
    return job["name"] in names[0].split(",")


def lives(pid):
    """Tell whether a process lives."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def row_of_squeue(job, word):
    """A line of squeue in the format that we ask for."""
    reason = {"PENDING": "Resources", "FAILED": "NonZeroExitCode"}.get(word, "None")
    return f"{job['id']}|{word}|N/A|N/A|{reason}|{job['comment']}\n"


def row_of_pbs(job, word):
    """A row of `qstat -x -s -w -u USER`, with the comment below."""
    row = f"{job['id']:<30} {'amp':<15} {'workq':<15} {job['name'][:15]:<15} "
    row += f"{'--':<8} {1:>4} {1:>5} {'--':>6} 00:10 {word} {'--':>5}\n"
    return row + f"   {REASON if word == 'Q' else 'Job run at Fri Nov 20 at 11:12 on (n1)'}\n"


def row_of_torque(job, word):
    """A row of `qstat -u USER` of Slurm's wrappers."""
    row = f"{job['id']:<20} {'amp':<8} {'dl':<8} {job['name'][:20]:<20} "
    return row + f"{'--':<6} {1:>5} {1:>5} {'--':>6} 00:03 {word} 00:00\n"


def row_of_block(job, word):
    """A block of `qstat -f`."""
    return (
        f"Job Id: {job['id']}\n    Job_Name = {job['name']}\n    Job_Owner = amp@login1\n"
        f"    job_state = {word}\n    comment = {REASON[:40]}\n\t{REASON[40:]}\n\n"
    )


def row_of_sge(job, word):
    """A job_list of `qstat -xml`."""
    kind, queue = ("pending", "") if "q" in word else ("running", "all.q@sge1")
    return (
        f'    <job_list state="{kind}">\n      <JB_job_number>{job["id"]}</JB_job_number>\n'
        f"      <JAT_prio>0.50000</JAT_prio>\n      <JB_name>{job['name']}</JB_name>\n"
        f"      <JB_owner>amp</JB_owner>\n      <state>{word}</state>\n"
        f"      <queue_name>{queue}</queue_name>\n      <slots>1</slots>\n    </job_list>\n"
    )


def row_of_lsf(job, word):
    """A line of bjobs in the format that we ask for."""
    reason = REASON if word == "PEND" else "-"
    code, host = ("1", "n1") if word == "EXIT" else ("-", "-" if word == "PEND" else "n1")
    return f"{job['id']}^{word}^{code}^{host}^{reason}^{job['name']}\n"


def row_of_flux(job, word):
    """A line of flux jobs in the format that we ask for."""
    result, code = ("FAILED", "1") if word == "INACTIVE" else ("", "")
    nodes, reason = ("", REASON) if word == "SCHED" else ("n1", "")
    return f"{job['id']}|{word}|{result}|{code}|{nodes}|{reason}|{job['name']}\n"


ROW = {
    "slurm": row_of_squeue,
    "pbs": row_of_pbs,
    "torque": row_of_torque,
    "sge": row_of_sge,
    "lsf": row_of_lsf,
    "flux": row_of_flux,
}

PBS_HEAD = (
    "\npbs01: \n" + " " * 99 + "Req'd  Req'd   Elap\n"
    "Job ID                         Username        Queue           Jobname         "
    "SessID   NDS  TSK   Memory Time  S Time\n"
    + " ".join("-" * n for n in (30, 15, 15, 15, 8, 4, 5, 6, 5, 1, 5))
    + "\n"
)

TORQUE_HEAD = (
    "\nlogin1:\n" + " " * 79 + "Req'd  Req'd   Elap \n"
    "Job id               Username Queue    Name                 SessID NDS   TSK   Memory "
    "Time Use S Time \n" + " ".join("-" * n for n in (20, 8, 8, 20, 6, 5, 5, 6, 5, 1, 5)) + "\n"
)

XML_HEAD = "<?xml version='1.0'?>\n<job_info  xmlns:xsd=\"http://arc.liv.ac.uk/qstat.xsd\">\n"

FRAME = {
    "slurm": lambda rows: rows,
    "pbs": lambda rows: rows and PBS_HEAD + rows,
    "torque": lambda rows: rows and TORQUE_HEAD + rows,
    "sge": lambda rows: (
        XML_HEAD
        + "  <queue_info>\n  </queue_info>\n  <job_info>\n"
        + rows
        + "  </job_info>\n</job_info>\n"
    ),
    "lsf": lambda rows: rows,
    "flux": lambda rows: rows,
}


# ---- cancelling ----------------------------------------------------------------------------------


def cancel(system, argv):
    """Be the cancel command; return the exit code."""
    memory = os.environ["FAKE_BATCH"]
    with open(memory + ".cancels", "a") as cancels:
        cancels.write("cancelled\n")
    if os.environ.get("FAKE_CANCEL") == "hang":
        time.sleep(HANG_S)
    for name in os.listdir(memory):
        with open(os.path.join(memory, name)) as file:
            job = json.load(file)
        if job["id"] == argv[-1] and job["pid"] and lives(job["pid"]):
            os.kill(job["pid"], signal.SIGUSR2 if system == "sge" else signal.SIGTERM)
            return 0
    return 0 if system == "slurm" else 1


def complain(code, text):
    """Say what is wrong; return the exit code."""
    print(text, file=sys.stderr)
    return code
