"""A service host between two passes, its steps called one by one, for tests of single steps."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml
from world import World

from hpc_batch import node
from hpc_batch.answer import Answers
from hpc_batch.bulk import Fetched, WantedOutput
from hpc_batch.collecting import Collecting, Collection, ticket_of
from hpc_batch.intake import Intake
from hpc_batch.listing import look
from hpc_batch.record import Record
from hpc_batch.records import Records
from hpc_batch.session import Answer
from hpc_batch.sight import Sight
from hpc_batch.staging import Staged
from hpc_batch.state import State, hold
from hpc_batch.steps import Steps
from hpc_batch.tidings import Collected
from hpc_batch.trouble import Ledger
from hpc_cluster import files

NAMES = ("a.job", "b.job")

PILOT = "a" * 16

MADE = b"made"
"""What every output holds that is fetched."""


class Fetching:
    """A data channel over which the same content comes for everything."""

    def fetch(self, wanted: Sequence[Any]) -> list[Fetched]:
        for item in wanted:
            if isinstance(item, WantedOutput):
                descriptor = item.opener()
                files.write_at(descriptor, MADE, 0)
                files.close(descriptor)
        return [Fetched(len(MADE), hashlib.sha256(MADE).hexdigest()) for _ in wanted]


class Willing:
    """A connection to a cluster that does what it is asked for, and notes it."""

    id = "5" * 16

    def __init__(self) -> None:
        self.staging = self.session = self
        self.published: dict[str, str] = {}
        self.purged: list[str] = []

    def stage(self, batch: list[Record]) -> Staged:
        return Staged(ready=batch)

    def begin_publish(self, jobs: dict[str, str]) -> Answer[None]:
        self.published.update(jobs)
        return Answer(lambda: None)

    def begin_purge(self, jobs: list[str], *, keep: bool) -> Answer[frozenset[str]]:
        self.purged += jobs
        return Answer(lambda: frozenset(jobs))


class Elsewhere:
    """An upkeep of pilots that others look after."""

    def ask_after_publishing(self, connection: object) -> None:
        return

    def ask_before_cleaning(self, connection: object) -> None:
        return


class Desk:
    """A service host between two passes; `again` is what the next pass reads from the disk."""

    def __init__(self, here: World, state: State) -> None:
        self.here, self.state = here, state
        self.again()

    def again(self) -> None:
        self.records = Records(self.state.path("journal")).load()
        self.intake = Intake(self.here.config, self.state, self.records)
        self.answers = Answers(self.state, self.records, self.intake)

    def drop(self, name: str) -> None:
        self.here.drop(name.removesuffix(".job"), "say", args={"words": name})

    def steps(self, cluster: Willing | None, sight: Sight | None = None) -> Steps:
        """Return a pass's steps with this cluster; None for one that cannot be reached."""
        connection: Any = cluster
        upkeep: Any = Elsewhere()
        return Steps(
            self.here.config,
            self.state,
            self.records,
            Ledger(self.state),
            lambda: connection,
            sight or Sight(),
            upkeep,
            keep=False,
        )

    # ---- the steps ---------------------------------------------------------------------------

    def take(self) -> None:
        """Begin as a pass does: first what was begun, then what is new."""
        intents = [r for r in self.records if r.phase == "INTENT"]
        if intents:
            self.intake.accept(intents)
        busy = {r.name for r in self.records}
        self.intake.take(d for d in look(self.here.dropbox).drops if d.name not in busy)

    def decide(self) -> None:
        """Have an answer for every job."""
        made = [(r, node.make(r, "completed", "processed OK")) for r in self.records]
        self.answers.decide(made)

    def answer(self) -> None:
        batch = [r for r in self.records if r.phase == "ANSWERING"]
        stuck = self.answers.answer(batch)
        if stuck:
            raise OSError(next(iter(stuck.values())))

    def clean(self, purge: Callable[[list[str]], frozenset[str]]) -> None:
        cleaning = [r for r in self.records if r.phase == "CLEANING"]
        self.answers.clean(cleaning, lambda jobs: Answer(lambda: purge(jobs)))

    def collect(
        self, batch: Sequence[Record], outputs: Mapping[str, bytes], **more: Any
    ) -> Collection:
        """Collect what finished jobs made, whose results say these outputs, and `more`."""
        said = {
            name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in outputs.items()
        }
        found = [(record, ticket_of(f"{record.id}.a1.{PILOT}.ok")) for record in batch]
        known = {t.name: Collected({"rc": 0, "outputs": said, **more}, (), None) for _, t in found}
        nobody: Any = None
        collecting = Collecting(nobody, self.records, nobody, Fetching)  # type: ignore[arg-type]
        return collecting.collect(found, 1 << 10, known)

    # ---- what is there -----------------------------------------------------------------------

    def inner(self, kind: str) -> set[str]:
        """Return the jobs of which there is a J.KIND."""
        names = os.listdir(self.state.inner)
        return {n.partition(".")[0] for n in names if n.endswith(f".{kind}")}

    def finished(self) -> dict[str, dict[str, Any]]:
        found = {}
        for path in sorted(self.here.dropbox.glob("*.finished*")):
            content = yaml.safe_load(path.read_bytes())
            assert isinstance(content, dict), path
            found[path.name] = content["job"]
        return found


@contextmanager
def making(folder: Path) -> Iterator[Callable[[str], Desk]]:
    """Give what makes a fresh desk with two drops; the locks are held meanwhile."""
    with ExitStack() as stack:

        def make(name: str) -> Desk:
            here = World(folder / name)
            state = stack.enter_context(hold(here.config))
            state.begin()
            desk = Desk(here, state)
            for drop in NAMES:
                desk.drop(drop)
            return desk

        yield make
