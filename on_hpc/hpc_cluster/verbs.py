"""The verbs of a session: what a service host, or a person on the cluster, may ask for.

Each takes the arguments of its request, checked here, and returns what is answered; each may be
repeated. What they do to tickets is in `spool`, to inputs in `store` and `loading`, to pilots in
`queuer`, and to what was forgotten in `leftovers`; here is what a request and an answer look like.
"""

import base64
import json
import os
import re
import sys
from typing import Any, Callable, Dict, List, Optional, Tuple

from hpc_cluster import clock, dismissal, files, pilot, queuer, ticket, trash
from hpc_cluster.errors import UsageError
from hpc_cluster.leftovers import Leftovers
from hpc_cluster.loading import Load, load_all
from hpc_cluster.spool import Spool
from hpc_cluster.store import KEY, Store

ORPHAN_S = 36 * 3600
"""What no record knows is kept for so long: a service host may come back from a restored state."""

TRASH_S = 10
"""A session deletes for at most so long at a time; the rest is deleted by later ones."""

RESULTS = 2000
"""A census reads at most so many results; the others are asked for."""

LOOK_S = 0.1
LOOK_PART = 0.1
LOOK_MOST_S = 1.0
"""While a near end waits for a result, it is looked for every LOOK_S at first, then every LOOK_PART
of the time waited, and every LOOK_MOST_S in the end: what took long is told a little later."""

TAIL_BYTES = 16 << 20
"""No more of a stream is returned at once."""


class Verbs:
    """The verbs on one workspace for one service host, in one session."""

    def __init__(
        self, spool: Spool, session: str, instance: str, pause: Callable[[float], Optional[bool]]
    ) -> None:
        """`pause` sleeps for so many seconds; True, and at once, when the near end asks."""
        self._spool = spool
        self._session = session
        self._instance = instance
        self._pause = pause
        self._store = Store(spool.path("inputs"), session)
        self.orphan_s = ORPHAN_S
        self.made = False
        """The workspace was made when this session began."""
        self.littered = False
        """Something lies in trash that this session may delete."""

    def do(self, verb: Any, args: Any) -> Any:
        """Perform a verb. Raises ClusterError, OSError."""
        act = VERBS.get(verb) if isinstance(verb, str) else None
        if act is None:
            raise UsageError("there is no verb {!r}; there are {}".format(verb, ", ".join(VERBS)))
        if not isinstance(args, dict):
            raise UsageError(f"{verb}: the arguments are no JSON object")
        return act(self, args)

    def tidy(self, go_on: Callable[[], bool]) -> None:
        """Delete what requests have moved to trash, while `go_on` says so, for TRASH_S at most."""
        if not self.littered:
            return
        deadline = clock.monotonic() + TRASH_S
        try:
            self.littered = not trash.empty(
                self._spool, lambda: go_on() and clock.monotonic() < deadline
            )
        except OSError:
            return  # it is tried again behind the next request, and by the daily sweep

    # ---- looking -----------------------------------------------------------------------------

    def hello(self, args: Dict[str, Any]) -> Dict[str, Any]:
        """Describe the workspace and the node."""
        disk = os.statvfs(self._spool.root)
        return {
            "workspace": self._spool.workspace,
            "made": self.made,
            "node": clock.node(),
            "free_bytes": disk.f_bavail * disk.f_frsize,
            "free_inodes": disk.f_favail,
            "pilots_python": sys.executable,
        }

    def census(self, args: Dict[str, Any]) -> Dict[str, Any]:
        """List every ticket of this service host; a listing that fails is an error, not a gap.

        With `results`, what stands behind the tickets in done is read as well.
        """
        found = self._spool.census(self._instance)
        read = [ticket.parse("done", n) for n in found.done] if args.get("results") is True else []
        return {
            "incoming": found.incoming,
            "ready": found.ready,
            "running": found.running,
            "done": found.done,
            "others": {"ready": found.others_ready, "running": found.others_running},
            "complete": True,
            "collected": {t.name: self._collected(t) for t in read[:RESULTS] if t is not None},
        }

    def wait(self, args: Dict[str, Any]) -> Dict[str, Any]:
        """Wait until done holds a ticket that the near end has not seen, or it asks something."""
        seen = set(_texts(args, "seen"))
        began = clock.monotonic()
        deadline = began + _count(args, "seconds")
        while True:
            changed = any(t.name not in seen for t in self._spool.tickets("done", self._instance))
            now = clock.monotonic()
            rest_s = max(LOOK_S, min(LOOK_MOST_S, LOOK_PART * (now - began)))
            if changed or now >= deadline or self._pause(min(rest_s, deadline - now)):
                return {"changed": changed}

    def tail(self, args: Dict[str, Any]) -> Dict[str, Any]:
        """Return the end of a stream of the latest attempt."""
        job, stream = self._job(args.get("job")), args.get("stream", "stdout")
        if stream not in ("stdout", "stderr"):
            raise UsageError(f"there is no stream {stream!r}")
        names = files.names(self._spool.job_folder(job))
        attempts = [int(n[1:]) for n in names if re.fullmatch("a[1-9][0-9]*", n)]
        if not attempts:
            return {"text": "", "size": 0, "attempt": 0}
        limit = min(_count(args, "bytes", 65536), TAIL_BYTES)
        folder = self._spool.attempt_folder(job, max(attempts))
        try:
            descriptor = files.open_inside(folder, stream)
        except FileNotFoundError:
            # RACE: the attempt has just begun, or was purged.
            return {"text": "", "size": 0, "attempt": max(attempts)}
        with os.fdopen(descriptor, "rb") as file:
            size = os.fstat(descriptor).st_size
            file.seek(max(0, size - limit))
            text = base64.b64encode(file.read(limit)).decode("ascii")
        return {"text": text, "size": size, "attempt": max(attempts)}

    def collect(self, args: Dict[str, Any]) -> Dict[str, Any]:
        """Return what stands behind tickets in done."""
        names = _texts(args, "tickets")
        there = {t.name for t in self._spool.tickets("done", self._instance)}
        answer = {}
        for name in names:
            found = ticket.parse("done", name)
            if found is None or found.instance != self._instance:
                raise UsageError(f"{name!r} is no ticket of this service host")
            if name in there:
                answer[name] = self._collected(found)
            else:
                answer[name] = {"result": None, "pilots": [], "error": "no such ticket"}
        return answer

    def _collected(self, found: ticket.Ticket) -> Dict[str, Any]:
        # Only the answer of a job on which pilots died says something of them.
        pilots = [pilot.read(self._spool, found.pilot)] if found.kind == "died" else []
        try:
            result, error = self._result(found)
        except OSError as trouble:
            text = f"result.json cannot be read now: {trouble.strerror}"
            return {"result": None, "pilots": pilots, "error": text, "passing": True}
        return {"result": result, "pilots": pilots, "error": error}

    def _result(self, found: ticket.Ticket) -> Tuple[Optional[Dict[str, Any]], Optional[str]]:
        """Return result.json of the attempt in a ticket, and what is wrong with it.

        Raises OSError for what may pass.
        """
        folder, attempt = self._spool.job_folder(found.job), f"a{found.starts}"
        try:
            result = _read(folder, attempt, "result.json")
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno in files.PASSING:
                raise
            # A job that died, or was cancelled before it ran, has none.
            wanted = found.kind in ("ok", "fail")
            return None, f"result.json cannot be read: {error}" if wanted else None
        if result.get("id") != found.job or result.get("attempt") != found.starts:
            return None, "result.json belongs to another attempt"
        if result.get("pilot") != found.pilot:
            return None, "result.json is of another pilot"
        return result, None

    # ---- moving ------------------------------------------------------------------------------

    def stage(self, args: Dict[str, Any]) -> Dict[str, Any]:
        """Nothing to incoming: announce jobs, and tell which inputs the store does not have.

        Jobs that were published before are told as well, and left alone.
        """
        sizes: Dict[str, int] = {}
        for pair in _list(args, "keys"):
            if not isinstance(pair, list) or len(pair) != 2:
                raise UsageError(f"no key and size: {pair!r}")
            sizes[_key(pair[0])] = _count({"bytes": pair[1]}, "bytes")
        published = self._spool.begin_all(self._jobs(args), self._session)
        return {"missing": sorted(self._store.wanted(sizes.items())), "published": published}

    def prepare(self, args: Dict[str, Any]) -> Dict[str, Any]:
        """Incoming stays incoming: link the inputs, write the description, durably."""
        loads = [self._load(entry) for entry in _list(args, "jobs")]
        prepared, again = load_all(self._spool, self._store, self._session, loads)
        return {"prepared": prepared, "again": again}

    def publish(self, args: Dict[str, Any]) -> Dict[str, str]:
        """Incoming to ready, each job with the session that prepared it."""
        pairs = []
        for pair in _list(args, "jobs"):
            if not isinstance(pair, list) or len(pair) != 2 or not ticket.is_random(str(pair[1])):
                raise UsageError(f"no job and session: {pair!r}")
            pairs.append((self._job(pair[0]), str(pair[1])))
        return self._spool.publish_all(pairs)

    def cancel(self, args: Dict[str, Any]) -> Dict[str, str]:
        """Ready to done as cancelled; who has the job will stop it."""
        return self._spool.cancel_all(self._jobs(args))

    def purge(self, args: Dict[str, Any]) -> Dict[str, Any]:
        """Anything to nothing: data to trash (or kept), then the tickets."""
        jobs = self._jobs(args)
        self._spool.purge_all(jobs, keep=args.get("keep") is True)
        self.littered = True
        return {"purged": jobs}

    def sweep(self, args: Dict[str, Any]) -> Dict[str, Any]:
        """Remove what was forgotten: unknown jobs, tickets of dead sessions, idle inputs.

        With `kept_s`, what lies in kept/ for longer than so many seconds goes, too.
        """
        known = set(_texts(args, "known"))
        limit = None if args.get("store_bytes") is None else _count(args, "store_bytes")
        before = self._store.now() - self.orphan_s
        left = Leftovers(self._spool, self._session, self._instance)
        trashed = left.purge_orphans(known, before)
        litter = left.remove_litter(known, before)
        left.remove_drafts(before)
        evicted = self._store.evict(limit, self.orphan_s)
        unkept = []
        if args.get("kept_s") is not None:
            unkept = left.discard_kept(self._store.now() - _count(args, "kept_s"))
        deadline = clock.monotonic() + TRASH_S
        trash.empty(self._spool, lambda: clock.monotonic() < deadline)
        return {
            "trashed": trashed,
            "litter": litter,
            "evicted": evicted,
            "store": self._store.count()._asdict(),
            "unkept": unkept,
            "kept": len(left.kept()),
            "trash": len(os.listdir(self._spool.path("trash"))),
        }

    def pilots(self, args: Dict[str, Any]) -> Any:
        """Observe the pilots, reap what dead ones left, and submit what the policy asks for.

        With `unless_done`, nothing of that while a result waits: its answer comes first.
        """
        policy = args.get("policy")
        if not isinstance(policy, dict):
            raise UsageError("pilots needs a policy")
        if args.get("unless_done") is True and self._spool.tickets("done", self._instance):
            return None
        return queuer.keep(self._spool, policy)

    def submit(self, args: Dict[str, Any]) -> Any:
        """Submit one pilot now, under the name that the near end chose for it."""
        policy, name = args.get("policy"), args.get("pilot")
        if not isinstance(policy, dict) or not ticket.is_random(str(name)):
            raise UsageError("submit needs a policy and a name for the pilot")
        return queuer.submit(self._spool, policy, str(name))

    def dismiss(self, args: Dict[str, Any]) -> Any:
        """End pilots; the tickets of their jobs go back to ready."""
        names = _texts(args, "pilots")
        if not all(ticket.is_random(name) for name in names):
            raise UsageError("dismiss needs the names of pilots")
        return dismissal.dismiss(self._spool, names)

    # ---- requests ----------------------------------------------------------------------------

    def _job(self, value: Any) -> str:
        """Return the id of a job of this service host."""
        if not isinstance(value, str) or not ticket.is_job(value):
            raise UsageError(f"{value!r} is no job's id")
        if ticket.instance_of(value) != self._instance:
            raise UsageError(f"{value} belongs to another service host")
        return value

    def _jobs(self, args: Dict[str, Any]) -> List[str]:
        return [self._job(value) for value in _list(args, "jobs")]

    def _load(self, entry: Any) -> Load:
        """Return a job to load."""
        if not isinstance(entry, dict) or not isinstance(entry.get("description"), dict):
            raise UsageError("no job to prepare")
        inputs = []
        for item in _list(entry, "inputs"):
            size = _count(item, "bytes")
            inputs.append(("" if item.get("sent") is True else _key(item.get("key")), size))
        script = entry.get("script")
        if not isinstance(script, str):
            raise UsageError("script is no text")
        job = self._job(entry.get("id"))
        return Load(job, entry["description"], files.to_bytes(script), inputs)


VERBS: Dict[str, Callable[[Verbs, Dict[str, Any]], Any]] = {
    "hello": Verbs.hello,
    "census": Verbs.census,
    "stage": Verbs.stage,
    "prepare": Verbs.prepare,
    "publish": Verbs.publish,
    "collect": Verbs.collect,
    "cancel": Verbs.cancel,
    "purge": Verbs.purge,
    "sweep": Verbs.sweep,
    "pilots": Verbs.pilots,
    "submit": Verbs.submit,
    "dismiss": Verbs.dismiss,
    "wait": Verbs.wait,
    "tail": Verbs.tail,
}


def _list(args: Dict[str, Any], name: str) -> List[Any]:
    value = args.get(name)
    if not isinstance(value, list):
        raise UsageError(f"{name} is no list")
    return value


def _texts(args: Dict[str, Any], name: str) -> List[str]:
    values = _list(args, name)
    if not all(isinstance(value, str) for value in values):
        raise UsageError(f"{name} is no list of texts")
    return values


def _count(args: Any, name: str, default: Optional[int] = None) -> int:
    value = args.get(name, default) if isinstance(args, dict) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
        raise UsageError(f"{name} is no number: {value!r}")
    return int(value)


def _key(value: Any) -> str:
    if not isinstance(value, str) or not KEY.fullmatch(value):
        raise UsageError(f"{value!r} is no key of the store")
    return value


def _read(folder: bytes, *names: str) -> Dict[str, Any]:
    """Return the JSON object in a file below a folder, no link followed. Raises OSError."""
    with os.fdopen(files.open_inside(folder, *names), "rb") as file:
        value = json.loads(file.read().decode("utf-8"))
    if not isinstance(value, dict):
        raise ValueError("no JSON object")
    return value
