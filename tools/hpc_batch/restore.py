"""Restoring: bringing a state folder and a dropbox of different times together again.

After a restore from a backup, the records may be older than what happened since. What is in
`dropbox/.hpc_batch` tells: a job whose J.answer is gone was answered; one whose J.drop is gone was
answered and forgotten. A drop that no record knows was taken after the backup was made; it becomes
a new drop again, which may start its job once more and answers it once. Jobs that the cluster knows
are not published again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence

from hpc_batch import hosts, session
from hpc_batch.config import Config
from hpc_batch.lingering import WHOLE_S
from hpc_batch.record import Record
from hpc_batch.records import Records
from hpc_batch.state import State, check_home, hold
from hpc_cluster import durable, files


def restore(config: Config) -> list[str]:
    """Bring a restored state folder and its dropbox together again; return what was done."""
    with hold(config, WHOLE_S if config.cronjob.linger else 0) as state:
        state.adopt()
        records = Records(state.path("journal")).load()
        check_home(records, config)
        return list(_restored(config, state, records))


def _restored(config: Config, state: State, records: Records) -> Iterator[str]:
    """Compare the records with what is in `.hpc_batch`."""
    present: dict[str, set[str]] = {}
    for name in files.names(str(state.inner)):
        job, _, kind = name.partition(".")
        if kind in ("drop", "answer", "cancel"):
            present.setdefault(job, set()).add(kind)
    answered = [r for r in records if r.phase != "INTENT" and "drop" not in present.get(r.id, ())]
    for record in answered:
        yield f"{record.name}: was answered since; its record is removed"
    records.remove_all(answered)
    for job in records.forget_damaged():
        yield f"{job}: its record was damaged and is removed"
    late = [r for r in records if r.phase not in ("INTENT", "CLEANING")]
    done = [r for r in late if "answer" not in present[r.id]]
    for record in done:
        yield f"{record.name}: was answered since"
    records.save_all(r.enter("CLEANING") for r in done)
    early = [r for r in records if r.phase in ("ACCEPTED", "STAGING", "PUBLISHING")]
    if early:
        yield from _seen_on_cluster(config, state, records, early)
    known = {r.id for r in records}
    yield from _orphans(state, {j: k for j, k in sorted(present.items()) if j not in known})


def _seen_on_cluster(
    config: Config, state: State, records: Records, early: Sequence[Record]
) -> Iterator[str]:
    """Jobs that were published after the backup was made must not be published again."""
    host = hosts.connect(config.remote, inherit=state.lock_descriptors)
    try:
        with session.begin(host, config.remote, config.env, state.instance) as opened:
            census = opened.census()
    finally:
        host.close()
    listed = {
        name.split(".")[0]
        for place in (census.ready, census.running, census.done)
        for name in place
    }
    found = [r for r in early if r.id in listed]
    for record in found:
        yield f"{record.name}: was published since"
    records.save_all(r.enter("PUBLISHED", remote=True) for r in found)


def _orphans(state: State, found: Mapping[str, set[str]]) -> Iterator[str]:
    """Drops that were taken after the backup was made go back into the dropbox.

    They are there for good before anything goes that tells of them.
    """
    for job, kinds in found.items():
        if kinds >= {"drop", "answer"}:
            target = state.dropbox / _name_of(state, job)
            if files.exists(str(target)):
                target = state.dropbox / f"{job}.job"
            files.unlink(str(state.dropbox / f"{target.name}.submitted"))
            files.move(state.of_job(job, "drop"), str(target))
            yield f"{target.name}: was taken after the backup was made; it is a new drop again"
    durable.sync_folders([str(state.dropbox), str(state.inner)])
    for job in found:
        for kind in ("cancel", "answer", "drop"):
            files.unlink(state.of_job(job, kind))
    durable.sync_folder(str(state.inner))


def _name_of(state: State, job: str) -> str:
    """Return the name under which a job was dropped; its reserved answer remembers it."""
    try:
        reserved = files.read_bytes(state.of_job(job, "answer")).split(b"\n", 1)[0]
        return os.fsdecode(files.to_bytes(str(json.loads(reserved)["name"])))
    except (OSError, ValueError, KeyError, TypeError):
        return f"{job}.job"
