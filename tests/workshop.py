"""A workspace for tests of the cluster's side: publishes jobs without a service host, runs pilots.

Standard library only, and Python 3.6 like the code it exercises: `data/cluster_selftest.py` uses it
under every interpreter of the machine.
"""

import itertools
import os
import secrets
import signal
import subprocess
import sys
import time

ON_HPC = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "on_hpc")
if ON_HPC not in sys.path:
    sys.path.insert(0, ON_HPC)

from hpc_cluster import PROTOCOL, description, files, guard, queuer  # noqa: E402
from hpc_cluster.spool import Spool  # noqa: E402

INSTANCE = "0123abcd"
SESSION = "5" * 16
WORD = "hpcb0123456789abcdef"


class Workshop:
    """A workspace and the pilots that were started in it; `close` ends them."""

    def __init__(self, folder, python=sys.executable):
        self.spool, _ = Spool.make(str(folder))
        self.python = python
        self.pilot = secrets.token_hex(8)
        """A name for one: another's guard ends whatever carries the name of its own."""
        self.started = []
        self._numbers = itertools.count(1)

    def close(self):
        """End every pilot and job that is left, by its number alone."""
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.wait()
        for name in os.listdir(self.spool.path("pilots")):
            self.kill_local_pilot(files.from_bytes(name))

    def kill_local_pilot(self, pilot):
        """SIGKILL a pilot that the local batch system started, if it is alive."""
        from hpc_cluster import pilot as pilots

        known = pilots.read(self.spool, pilot).get("native_id") or ""
        pid = known.split(".")[0]
        if known.count(".") == 2 and pid.isdigit() and alive(known):
            os.kill(int(pid), signal.SIGKILL)
            wait_until(lambda: not alive(known), 5)
            return int(pid)
        return None

    # ---- jobs --------------------------------------------------------------------------------

    def job(self, script, inputs=(), outputs=(), **changes):
        """Publish a job; `inputs` are (name, content), `outputs` names. Return its id."""
        job = self.stage(script, inputs, outputs, **changes)
        self.spool.publish_all([(job, SESSION)])
        return job

    def stage(self, script, inputs=(), outputs=(), **changes):
        """Put everything of a job into place but its ticket in ready/. Return its id."""
        job = f"{INSTANCE}-0199aabbccd-{next(self._numbers):016x}"
        self.spool.begin_all([job], SESSION)
        described = {
            "protocol": PROTOCOL,
            "id": job,
            "instance": INSTANCE,
            "name": "thing.job",
            "script": "thing",
            "word": WORD,
            "layout": "flat",
            "writable_inputs": False,
            "inputs": [
                {"key": f"i{n}", "name": name, "bytes": len(content)}
                for n, (name, content) in enumerate(inputs)
            ],
            "outputs": [{"key": f"o{n}", "name": name} for n, name in enumerate(outputs)],
            "time_limit": None,
            "grace_s": 1,
            "attempts": 3,
            "starts": 10,
        }
        more = changes.pop("described", {})
        described.update(changes, **more)
        folder = self.spool.job_folder(job)
        apart = described["protocol"] == description.APART
        if apart:
            files.make_folder(files.join(folder, "in"))
        for number, (_, content) in enumerate(inputs):
            inner = ("in", str(number)) if apart else (f"in{number}",)
            files.write_new(files.join(folder, *inner), content, 0o400)
        if isinstance(script, str):
            script = files.to_bytes(script)
        if apart and script is not None:
            files.write_new(files.join(folder, "script"), script)
        elif script is not None:
            described = description.whole(described, script)
        files.write_new(files.join(folder, "description.json"), files.to_json(described))
        return job

    def result(self, job, attempt=1):
        """Return the result of an attempt."""
        return files.read_json(files.join(self.spool.attempt_folder(job, attempt), "result.json"))

    def stream(self, job, name="stdout", attempt=1):
        """Return what an attempt printed."""
        return files.read_bytes(files.join(self.spool.attempt_folder(job, attempt), name))

    def done(self):
        """Return {J: kind} of all jobs that ended."""
        return {t.job: t.kind for t in self.spool.tickets("done", INSTANCE)}

    # ---- pilots ------------------------------------------------------------------------------

    def start(self, pilot, *options, **environment):
        """Start a runner in the background."""
        argv = [self.python, os.path.join(ON_HPC, "hpc_runner"), "--workspace"]
        argv += [self.spool.workspace, "--pilot", pilot, "--beat", "0.5", *options]
        clean = {k: v for k, v in os.environ.items() if not k.startswith("SLURM_")}
        process = subprocess.Popen(
            argv,
            env=dict(clean, **environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        self.started.append(process)
        return process

    def drain(self, *options, **environment):
        """Run one pilot until it ends; return its exit code."""
        process = self.start(secrets.token_hex(8), "--linger", "0", *options, **environment)
        return process.wait(60)

    def keep(self, **policy):
        """Run the queuer once, with the local batch system."""
        wishes = {"scheduler": "local", "linger": 0, "python": self.python}
        wishes.update(policy)
        return queuer.keep(self.spool, wishes)


def alive(native_id):
    """Tell whether a process of this node lives."""
    from hpc_cluster.batch import local

    return local.native_id(int(native_id.split(".")[0])) == native_id


def group_lives(group):
    """Tell whether a process group has members."""
    return guard.kill(group, 0)


def wait_until(condition, seconds=60):
    """Wait until a condition holds; fail in words when it does not."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds} s in vain")
        time.sleep(0.02)
