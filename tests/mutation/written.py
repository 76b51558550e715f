"""The mutants that were thought of: one safeguard each, by the piece of source that is it.

A row is NAME, module, what stands there, what stands there instead, and which safeguard that takes
out. Pieces are short, so that little else of a line has to stay as it is. The last column names
tests that are likely to notice, where those of the module (`mutants.TESTS`) are not.
"""

# Pieces of source stand here as they are.
# ruff: noqa: E501

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

NEAR, FAR = "tools/hpc_batch", "on_hpc/hpc_cluster"


class Outdated(Exception):
    """The source has changed, and the list of mutants has not."""


@dataclass(frozen=True)
class Written:
    """A mutant that somebody thought of."""

    name: str
    path: str
    old: str
    new: str
    why: str
    tests: tuple[str, ...] = ()

    def applied(self, checkout: Path) -> bytes:
        """Return the module's changed content. Raises Outdated."""
        text = (checkout / self.path).read_text(encoding="utf-8")
        count = text.count(self.old)
        if count != 1:
            raise Outdated(
                f"{self.name}: this stands {count} times in {self.path}, and should once:\n"
                f"{self.old}\nIf the line was changed, change its mutant in {__file__}, too; if "
                "this safeguard is elsewhere now, take it out there"
            )
        return text.replace(self.old, self.new).encode("utf-8")


def near(module: str, name: str, old: str, new: str, why: str, *tests: str) -> Written:
    return Written(f"{module}/{name}", f"{NEAR}/{module}.py", old, new, why, tests)


def far(module: str, name: str, old: str, new: str, why: str, *tests: str) -> Written:
    return Written(f"{module}/{name}", f"{FAR}/{module}.py", old, new, why, tests)


TAKING = (
    near(
        "intake",
        "no intent",
        "        self.records.save_all(new)\n        return",
        "        self.records._records.update({one.id: one for one in new})\n        return",
        "the record is durable before the drop is renamed",
    ),
    near(
        "intake",
        "take again",
        "missing = [r for r in intents if drops[r.id] in gone or not files.exists(drops[r.id])]",
        "missing = list(intents)",
        "a drop that was renamed before a kill is not taken again",
    ),
    near(
        "intake",
        "overwrite unread answer",
        '                move_aside(f"{source}.finished")\n',
        "                pass\n",
        "an unread answer is moved aside before the next job of its name is taken",
    ),
    near(
        "settling",
        "any file",
        "        if not stat.S_ISREG(status.st_mode):\n",
        "        if False:\n",
        "a taken drop is read only if it is a regular file",
    ),
    near(
        "intake",
        "anybody",
        "if not accepted:",
        "if False:",
        "[cronjob] accept_from is asked of the file that is read",
    ),
    near(
        "listing",
        "any links",
        "    if drop.links != 1:",
        "    if False:",
        "a drop with several links is left alone",
    ),
    near(
        "steps",
        "settle once",
        "            if drop.is_file and wait_of(drop, its_own, self._config)[0]:\n                return True\n",
        "",
        "whether somebody writes a drop is asked again after it was renamed",
    ),
    near(
        "settling",
        "no lease",
        '        return "open" if error.errno == errno.EAGAIN else "unknown"',
        '        return "quiet"',
        "a drop that a program has open for writing is waited for",
    ),
    near(
        "settling",
        "no newline",
        "    return max(settle, NO_NEWLINE_S), ",
        "    return settle, ",
        "a drop whose last line has no end is waited for longer",
    ),
    near(
        "admission",
        "same name twice",
        "            elif name in busy:\n",
        "            elif False:\n",
        "a drop waits while a job of its name is in flight",
    ),
)

STAGING = (
    near(
        "steps",
        "publish before the intent",
        '        self._records.save_all(r.enter("PUBLISHING", session=session_id) for r in staged.ready)\n',
        "        connection.session.publish({r.id: session_id for r in staged.ready})\n"
        '        self._records.save_all(r.enter("PUBLISHING", session=session_id) for r in staged.ready)\n',
        "which ticket is published is durable before it is",
    ),
    near(
        "steps",
        "publish any session",
        'begin_publish({r.id: r.session or "" for r in batch})',
        "begin_publish({r.id: connection.session.id for r in batch})",
        "only the ticket of the recorded session is published",
    ),
    near(
        "steps",
        "nothing to purge",
        "                    remote=True,\n",
        "                    remote=False,\n",
        "a job that may be on the cluster is purged there",
    ),
    near(
        "staging",
        "busy is for good",
        '    elif failure.kind in ("busy", "damaged"):\n        result.waiting[job.id] = failure.message\n',
        "",
        "what another session is sending is waited for",
    ),
    near(
        "staging",
        "prepared anyhow",
        "            elif done is not None and job.id in done.jobs:",
        "            elif done is not None:",
        "a job that must be staged again is not published",
    ),
    near(
        "sending",
        "changed before",
        "            if stamp != self._file.stamp:",
        "            if False:",
        "an input that changed since its job was taken is not sent",
    ),
    near(
        "sending",
        "changed meanwhile",
        "            if short or (last and stamp_of(os.fstat(descriptor)) != self._file.stamp):",
        "            if short:",
        "an input that changes while it is read is not sent",
    ),
    near(
        "sending",
        "resume anything",
        '        if hash_of(descriptor, size).hexdigest() != self._found.get("sha256"):',
        "        if False:",
        "only what has the same content is continued",
    ),
    near(
        "inputs",
        "young keys",
        "    if time.time_ns() - entry.stamp[2] < YOUNG_NS:",
        "    if False:",
        "a file that was changed just now gets a key that is never found again",
    ),
    far(
        "frames",
        "unverified frame",
        '                if hashlib.sha256(data).hexdigest() != header.get("sha256"):',
        "                if False:",
        "a frame that does not match its hash is refused",
    ),
    far(
        "frames",
        "unfenced",
        "        self._fence(arrival.target)\n",
        "",
        "a late session gives no file of a job its name",
    ),
    far(
        "frames",
        "incomplete files",
        "        ready = [a for a in self._arrivals.values() if a.complete]",
        "        ready = list(self._arrivals.values())",
        "only a file that came whole gets its name",
    ),
    far(
        "frames",
        "no release",
        "                    self._store.release(arrival.target[1])\n",
        "                    pass\n",
        "what has come of a file is left to a later session",
    ),
    far(
        "frames",
        "no renewal",
        "        self._spool.renew(mine, self._session)\n",
        "",
        "pilots see that jobs are still coming",
    ),
    far(
        "arrival",
        "gap",
        "        if offset != self.have:",
        "        if False:",
        "bytes continue where the last ones ended",
    ),
    far(
        "arrival",
        "half a frame",
        "            files.truncate(self._descriptor, self.have)\n            raise\n",
        "            raise\n",
        "half a frame that a full disk left does not count",
    ),
    far(
        "store",
        "any size",
        "        good = stat.S_ISREG(status.st_mode) and status.st_size == size",
        "        good = stat.S_ISREG(status.st_mode)",
        "a staged file is linked only if it has its size",
    ),
    far(
        "store",
        "any mtime",
        "        if not good or (mtime - _mark(key)) % MARK_S != 0:",
        "        if not good:",
        "a staged file that somebody wrote into is not linked again",
    ),
    far(
        "store",
        "no copy",
        "            if error.errno not in CANNOT_LINK:\n                raise\n",
        "            raise\n",
        "where a link cannot be made, a copy is",
    ),
    far(
        "store",
        "evicted for good",
        "        except FileNotFoundError:\n            raise Missing(key) from None\n        except OSError as error:\n",
        "        except OSError as error:\n",
        "a file that was evicted meanwhile is sent again",
    ),
    far(
        "store",
        "take over at once",
        "        return status is not None and abs(now - status.st_ctime) >= self.still_s",
        "        return status is not None",
        "a beginning that another session is writing is not taken over",
    ),
    far(
        "store",
        "evict what is used",
        "                if status.st_nlink == 1 and now",
        "                if now",
        "a file that jobs are linked to is not evicted",
    ),
    far(
        "store",
        "evict what is wanted",
        " and now - status.st_atime > self.resting_s:",
        ":",
        "a file that was wanted just now is not evicted",
    ),
    far(
        "loading",
        "any session",
        "        files.rewrite(spool.incoming_path(load.job, session), files.to_json(kept))\n",
        "        files.write_new(spool.incoming_path(load.job, session), files.to_json(kept))\n",
        "a late session loads no job",
    ),
    far(
        "loading",
        "another session's description",
        "        if error.errno not in (*CANNOT_LINK, errno.EEXIST):\n            raise\n",
        "        return error.errno == errno.EEXIST\n",
        "a late session writes over no description of a published job",
    ),
    far(
        "loading",
        "not arrived",
        "            if not _is_file(final, size):",
        "            if False:",
        "an input that was sent directly is there, with its size",
    ),
    far(
        "loading",
        "damaged inputs",
        "            if store.same(key, size, final):\n                continue\n",
        "            if files.exists(final):\n                continue\n",
        "an input that is there already is the staged file of today",
    ),
    far(
        "files/looking",
        "one look",
        "            if not is_second:\n                refresh(path)\n    return None",
        "            break\n    return None",
        "that a file is gone is concluded from two looks",
    ),
    far(
        "files/looking",
        "one look at many",
        "        left = {path for path in left if _is_missing(path)}\n",
        "        left = {path for path in left if _is_missing(path)}\n        break\n",
        "that many files are gone is concluded from two looks at each",
    ),
    far(
        "files/naming",
        "believed gone",
        "    for path in set(gone) - missing(gone):\n",
        "    for path in ():\n",
        "what one call of many did not find is looked for once more",
    ),
    far(
        "files/looking",
        "refused once",
        "        if error.errno in PASSING:\n            raise\n    return function(*args)",
        "        raise",
        "what is refused is tried once more",
    ),
    far(
        "files/naming",
        "failed renames failed",
        "        if exists(target):\n            return True\n        if error.errno in GONE and",
        "        if error.errno in GONE and",
        "after a failed rename the target is looked for",
    ),
    far(
        "files/naming",
        "stale is gone",
        "        if error.errno in GONE and not exists(source):",
        "        if error.errno in GONE:",
        "a source that cannot be seen for now is not gone",
    ),
    far(
        "files/naming",
        "gone is an error",
        "        if error.errno in GONE and not exists(source):\n            return False\n",
        "",
        "a source that is gone was moved by somebody else",
    ),
)

WATCHING = (
    near(
        "submitter",
        "counted always",
        "                counted=record.id in self.sight.counted,",
        "                counted=True,",
        "a census is believed only of jobs that were published before it was asked for",
    ),
    near(
        "submitter",
        "silence is empty",
        "        self.sight.census, self.sight.counted = None, frozenset()\n",
        "        self.sight.census, self.sight.counted = {}, frozenset(\n"
        "            r.id for r in self.records if r.phase == 'PUBLISHED'\n        )\n",
        "a cluster that does not answer says nothing",
    ),
    near(
        "submitter",
        "litter counts",
        '        if place == "incoming" and name != f"{record.id}.{record.session}":',
        "        if False:",
        "an incoming ticket of another session is litter",
    ),
    near(
        "submitter",
        "all or nothing",
        "            elif len(left) > 1:\n",
        "            elif False:\n",
        "where a batch fails, each of its jobs is tried by itself",
    ),
    near(
        "upkeep",
        "sweep by records",
        "begin_sweep(self._state.known_jobs(), limit)",
        "begin_sweep([r.id for r in self._records], limit)",
        "a job whose record cannot be read is not swept away",
    ),
    near(
        "plan",
        "lost at once",
        "    return missing >= LOST_CENSUSES and missing_s >= LOST_S",
        "    return missing >= LOST_CENSUSES",
        "a job is lost only after a day",
    ),
    near(
        "plan",
        "lost by one listing",
        "    return missing >= LOST_CENSUSES and missing_s >= LOST_S",
        "    return missing_s >= LOST_S",
        "a job is lost only after ten censuses",
    ),
    near(
        "plan",
        "forget no storage forgot",
        '    if seen.ticket == "incoming":\n        return "publish"\n',
        "",
        "a publishing that the storage forgot is done again",
    ),
    near(
        "steps",
        "never found again",
        "                counted.append(replace(record, missing=0, missing_since=None, missing_at=None))\n",
        "                counted.append(record)\n",
        "a ticket that is found again is not missing",
    ),
    near(
        "steps",
        "stuck for ever",
        "            if self._state.elapsed.age_s(noted.stuck_at) >= plan.STUCK_S:",
        "            if False:",
        "what does not pass is answered in the end",
    ),
    far(
        "spool",
        "census misses who moves",
        'LISTED = ("incoming", "ready", "running", "ready", "done")',
        'LISTED = ("done", "running", "ready", "incoming")',
        "a census follows the way of the jobs",
    ),
    far(
        "spool",
        "census misses who is handed back",
        'LISTED = ("incoming", "ready", "running", "ready", "done")',
        'LISTED = ("incoming", "ready", "running", "done")',
        "a job that is handed back meanwhile is seen",
    ),
    far(
        "spool",
        "missing folder is empty",
        '            raise WorkspaceError(f"{files.from_bytes(folder)} is missing") from None\n',
        "            return []\n",
        "a folder that is missing is an error",
    ),
)

ANSWERING = (
    near(
        "collecting",
        "unverified output",
        '            if got.sha256 != want["sha256"]:',
        "            if False:",
        "an output is what the job made, by its hash",
    ),
    near(
        "collecting",
        "fewer outputs",
        "        if len(outputs) != len(record.targets):",
        "        if False:",
        "every output that was asked for is there",
    ),
    near(
        "data_channel",
        "unverified frame",
        '        if not plain and hashlib.sha256(data).hexdigest() != header["sha256"]:',
        "        if False:",
        "a frame from the cluster matches its hash",
    ),
    near(
        "receiving",
        "too much",
        "            if size > item.bytes or self.anew:",
        "            if self.anew:",
        "a temporary that holds too much begins anew",
    ),
    near(
        "receiving",
        "not asked for",
        "        if offset != self._offset or offset + len(data) > self.item.bytes:",
        "        if False:",
        "bytes that were not asked for are refused",
    ),
    near(
        "placing",
        "keep nothing",
        '                _keep(target.path, _beside(record, number, "old"))'.lstrip(),
        "pass",
        "what stood at a destination is kept until all is placed",
    ),
    near(
        "placing",
        "keep ours",
        "        if target.existed and files.exists(temporary(record, number, record.attempt)):",
        "        if target.existed:",
        "an output of ours that was placed before a kill is not kept as what stood there",
    ),
    near(
        "placing",
        "keep again",
        "    except FileExistsError:\n        return  # kept before a kill\n",
        "    except FileExistsError:\n        files.unlink(old)\n        files.link(path, old)\n",
        "what was kept before a kill stays kept",
    ),
    near(
        "placing",
        "only links",
        "        if error.errno not in NO_LINKS:\n            raise\n",
        "        raise\n",
        "where no link can be made, what stands there is renamed",
    ),
    near(
        "placing",
        "aside again",
        "        if files.exists(old):\n            return  # set aside before a kill\n",
        "",
        "without links, too, what was set aside before a kill stays so",
    ),
    near(
        "placing",
        "exchanged",
        "        if _inode(target.path) != target.inode:\n",
        "        if False:\n",
        "that an output was placed before a kill is believed by its inode only",
    ),
    near(
        "placing",
        "onto folders",
        "        if _is_folder(target.path):",
        "        if False:",
        "nothing is placed while one destination is a folder",
    ),
    near(
        "placing",
        "two names",
        "                # rename does nothing when both names are the same file: only one is wanted.\n"
        "                files.unlink(old)\n",
        "",
        "what is put back has one name",
    ),
    near(
        "placing",
        "unlink anything",
        "            elif _inode(target.path) == target.inode:\n",
        "            elif files.exists(target.path):\n",
        "only an output of ours is taken away again",
    ),
    near(
        "placing",
        "old goes early",
        '        if _job_of(name) in placed or not name.endswith(".old"):',
        "        if True:",
        "what stood there is removed only when all is placed",
    ),
    near(
        "answer",
        "believed out",
        "        batch = self._answered(batch, inner)\n",
        "",
        "nothing is cleaned of a job whose answer is still reserved",
        "tests/preload/test_preload.py",
    ),
    near(
        "answer",
        "answer again",
        "            if not files.exists(path):\n"
        "                answered.append(record)  # renamed before a kill\n"
        "                continue\n",
        "",
        "an answer that was renamed before a kill is not written again",
    ),
    near(
        "answer",
        "whole or not",
        "        for size in (None, 2000, 500, 0):",
        "        for size in (None,):",
        "on a full disk the streams are cut, and the answer goes out",
    ),
    near(
        "answer",
        "over an unread answer",
        "            if target not in free or os.path.lexists(target):\n"
        "                move_aside(target)\n",
        "",
        "an unread answer is not overwritten",
    ),
    near(
        "answer",
        "failed rename failed",
        '            if not files.exists(self._state.of_job(record.id, "answer")):\n'
        "                return True  # RACE: renamed, and an error reported all the same\n",
        "",
        "after a failed rename of the answer it is looked whether it happened",
    ),
    near(
        "answer",
        "late cancel",
        '            self._withdraw(f"{drop}.cancel", looked=f"{drop}.cancel" in free)\n',
        "",
        "a cancel that came too late does not hit the next job of its name",
    ),
    near(
        "answer",
        "clean before purge",
        "        done = [*near, *(r for r in far if r.id in gone)]\n",
        "        done = [*near, *far]\n",
        "a record goes only when the cluster's data has",
    ),
    near(
        "answer",
        "clean without the cluster",
        "        near = [r for r in batch if not r.remote]\n",
        "        near = list(batch)\n",
        "a record waits for the cluster",
    ),
    near(
        "answer",
        "rename before sync",
        "                self._fill(path, record, papers, readable)\n"
        "                filled.append(record)\n",
        "                self._fill(path, record, papers, readable)\n"
        "                if self._rename(record, (), stuck):\n"
        "                    answered.append(record)\n",
        "an answer is durable before it is visible",
    ),
    far(
        "spool",
        "purge leaves incoming",
        '        for ticket in [t for found in tickets.values() for t in found if t.state == "incoming"]:\n'
        "            files.unlink(self.ticket_path(ticket))\n",
        "",
        "nobody publishes what is being removed",
    ),
    far(
        "spool",
        "purge tickets first",
        "        for job in tickets:\n            trash.discard(self, self.job_folder(job), keep=keep)\n",
        "        for ticket in [t for found in tickets.values() for t in found]:\n"
        "            files.unlink(self.ticket_path(ticket))\n"
        "        for job in tickets:\n            trash.discard(self, self.job_folder(job), keep=keep)\n",
        "the tickets go last, so that a kill leaves something to find",
    ),
)

OURSELVES = (
    near(
        "state",
        "any machine",
        '        if mine["machine"] != machine_id():',
        "        if False:",
        "a cloned state is refused",
    ),
    near(
        "state",
        "any generation",
        '        if mine["generation"] - theirs["generation"] not in (0, 1):',
        "        if False:",
        "a restored state is refused",
    ),
    near(
        "state",
        "any dropbox",
        '        if mine["instance"] != theirs["instance"]:',
        "        if False:",
        "an exchanged dropbox is refused",
    ),
    near(
        "state",
        "orphans ignored",
        "        if theirs is not None or orphans:",
        "        if False:",
        "a dropbox with jobs in flight is not begun anew",
    ),
    near(
        "state",
        "any home",
        "    if problems:\n        raise ConfigError(*problems)",
        "    if False:\n        raise ConfigError(*problems)",
        "another dropbox, host or workspace is refused while jobs are in flight",
    ),
    near(
        "state",
        "public",
        "        if status.st_mode & 0o077:",
        "        if False:",
        "the state folder is private",
    ),
    near(
        "state",
        "no lock for children",
        "        yield State(config, _descriptors(paths))",
        "        yield State(config)",
        "a lock is free only when the transfers of a killed pass are gone",
    ),
    near(
        "restore",
        "publish again",
        "    if early:\n        yield from _seen_on_cluster(config, state, records, early)\n",
        "",
        "after a restore, what the cluster knows is not published again",
    ),
    near(
        "restore",
        "forget orphans",
        '    if kinds >= {"drop", "answer"}:',
        "    if False:",
        "after a restore, a drop that no record knows becomes a drop again",
    ),
    near(
        "tidying",
        "clean by records",
        "opened.sweep(state.known_jobs(), ",
        "opened.sweep([], ",
        "clean leaves the jobs without an answer alone",
    ),
    near(
        "tidying",
        "clean lost jobs",
        ' or job in jobs or files.exists(state.of_job(job, "answer")):',
        " or job in jobs:",
        "clean leaves a job whose record was lost alone",
    ),
    near(
        "tidying",
        "clean any state",
        "        begun = state.join()\n",
        '        begun = state.read("machine") is not None\n'
        '        state.instance = (state.read("machine") or {}).get("instance", "")\n',
        "clean refuses a state that was restored",
    ),
)

PILOTS = (
    far(
        "tenure",
        "one miss",
        "MISSES = 3\n",
        "MISSES = 1\n",
        "one listing without its ticket loses no job",
    ),
    far(
        "tenure",
        "no misses",
        "            if attempt.misses >= MISSES:",
        "            if False:",
        "a job whose ticket was taken away is killed",
    ),
    far(
        "tenure",
        "slot taken away",
        "        return self._misses >= MISSES",
        "        return False",
        "a pilot whose slot was given away stops",
    ),
    far(
        "runner",
        "runs twice",
        '        if files.exists(files.join(self._folder, "runner.json")):',
        "        if False:",
        "a pilot that was requeued does not run again",
    ),
    far(
        "runner",
        "stale and running",
        "        if self.heartbeat.stale():\n            self.trouble",
        "        if False:\n            self.trouble",
        "a runner that cannot write its heartbeat stops its jobs",
    ),
    far(
        "runner",
        "closes without a look",
        "        self._statement.say(closing=clock.iso())\n        if not self._claims.is_work_left():\n",
        "        self._statement.say(closing=clock.iso())\n        if True:\n",
        "a pilot that is closing looks once more",
    ),
    far(
        "heartbeat",
        "late write is fine",
        "                self._hung = self._hung or self.stale()\n",
        "",
        "a late heartbeat does not undo that the guard has killed",
    ),
    far(
        "guard",
        "no kill at the end",
        "    for group in sorted(groups):\n        kill(group, signal.SIGKILL)\n",
        "",
        "what a killed runner leaves behind is killed",
    ),
    far(
        "guard",
        "no limit",
        "        if left is not None and left <= 0:\n            break\n",
        "        if left is not None and left <= 0:\n            left = None\n",
        "a heartbeat that hangs ends the jobs",
    ),
    far(
        "attempt",
        "finish without a result",
        '        if self._failure is None:\n            self.phase, self.outcome = "written"',
        '        if True:\n            self.phase, self.outcome = "written"',
        "a ticket moves to done only after its result is durable",
    ),
    far(
        "preparation",
        "into an old folder",
        "        while not files.make_folder(self.folder):",
        "        while not files.make_folder(self.folder) and False:",
        "an attempt begins in a folder of its own",
    ),
    far(
        "preparation",
        "another job",
        "            if found.job != job:",
        "            if False:",
        "a description belongs to its job",
    ),
    far(
        "verdict",
        "never given back",
        "    if isinstance(failure, OSError) and failure.errno in NOT_THE_JOB:",
        "    if False:",
        "a job that the node cannot prepare is given back",
    ),
    far(
        "process",
        "busy for good",
        "            if error.filename is None:\n                raise\n            time.sleep(pause_s)",
        "            raise",
        "a script that cannot be executed is executed again",
        "tests/preload/test_preload.py",
    ),
    far(
        "process",
        "leftovers",
        "            kill(self.group, signal.SIGKILL)\n            self._over(self._process.wait())\n",
        "            self._over(self._process.wait())\n",
        "what a job leaves in its process group is killed",
    ),
    far(
        "process",
        "lost and running",
        "            kill(self.group, signal.SIGKILL)\n            try:\n",
        "            try:\n",
        "a job that was lost is killed at once",
    ),
    far(
        "handover",
        "finished and lost",
        "            good = [a for a, failure in zip(batch, failures) if failure is None]\n",
        "            good = list(batch)\n            failures = [None for _ in batch]\n",
        "a result that could not be made durable is not handed over",
    ),
    far(
        "work",
        "any input",
        "        if size != item.size:",
        "        if False:",
        "a job starts only with whole inputs",
    ),
    far(
        "work",
        "no copy",
        "            if error.errno not in NO_LINKS:\n                raise\n",
        "            raise\n",
        "where an input cannot be linked it is copied",
    ),
    far(
        "work",
        "one look",
        "    for pause_s in PAUSES_S:",
        "    for pause_s in ():",
        "one ENOENT on a network file system means little",
    ),
    far(
        "spool",
        "crash for ever",
        "        if ticket.crashes + 1 >= attempts or ticket.starts >= starts:",
        "        if False:",
        "a job that kills its pilots is given up",
    ),
    far(
        "spool",
        "crashes uncounted",
        '        target = ticket._replace(state="ready", pilot="", crashes=ticket.crashes + 1)',
        '        target = ticket._replace(state="ready", pilot="")',
        "a crash is counted",
    ),
    far(
        "spool",
        "start for ever",
        '        if ticket.starts >= starts:\n            return "died"',
        '        if False:\n            return "died"',
        "a job is not started for ever",
    ),
    far(
        "spool",
        "cancel unsaid",
        '                files.write_new(self.path("jobs", job, "cancel"), b"")\n',
        "                pass\n",
        "who has a job is told of its cancellation",
    ),
    far(
        "claims",
        "suspects together",
        "            if ticket.crashes and (taken or not alone):",
        "            if False:",
        "a job that a pilot died on runs alone",
    ),
    far(
        "pilot",
        "listed is alive",
        '        if (started or info.get("native_id")) and seen.still_s >= STILL_S:',
        '        if started or info.get("native_id"):',
        "a pilot that is not listed is dead only when its heartbeat stands still",
    ),
    far(
        "pilot",
        "absent at once",
        '        if min(seen.absent_s, seen.still_s) >= absent_s and not (started or info.get("native_id")):',
        '        if not (started or info.get("native_id")):',
        "a pilot that was just submitted is not dead because no list names it",
    ),
    far(
        "pilot",
        "no lease",
        "    if started and seen.still_s >= LEASE_S and seen.reads >= READS:",
        "    if started and seen.still_s >= LEASE_S:",
        "a heartbeat is read several times before its pilot is dead",
    ),
    far(
        "pilot",
        "never by the lease",
        "    if started and seen.still_s >= LEASE_S and seen.reads >= READS:",
        "    if False:",
        "a pilot whose heartbeat stands still for the lease is dead",
    ),
    far(
        "pilot",
        "queued is dead",
        "    if state is not None and state.state == batch.QUEUED:\n        return None\n",
        "",
        "a pilot that is queued again is alive",
    ),
    far(
        "pilot",
        "another boot",
        '    if before.get("boot") != boot:\n        before = {}\n',
        "",
        "the monotonic clocks of two boots are not compared",
    ),
    far(
        "pilot",
        "blind observer",
        "    write(spool, pilot, memory, name)\n    return Observation",
        "    try:\n        write(spool, pilot, memory, name)\n    except OSError:\n        pass\n"
        "    return Observation",
        "an observer whose own writes fail concludes nothing",
    ),
    far(
        "reaping",
        "reap unburied",
        '        if not info.get("dead"):\n            continue\n        attempts',
        "        attempts",
        "tickets are taken only from the dead",
    ),
    far(
        "reaping",
        "free unburied",
        '        if pilot.read(spool, name).get("dead"):\n            slots.free',
        "        if True:\n            slots.free",
        "slots are taken only from the dead",
    ),
    far(
        "reaping",
        "hung pilots come back",
        "        answered = not batch.run(command).timed_out\n",
        "        pass\n",
        "a pilot that hangs is ended before its slot is given away",
    ),
    far(
        "reaping",
        "trash what is named",
        "        if name not in named:",
        "        if True:",
        "the folder of a pilot stays while a ticket names it",
    ),
    far(
        "slots",
        "more than there are",
        "    if len(holders(spool)) >= maximum:\n        return None\n",
        "",
        "slots beyond the policy's count",
    ),
    far(
        "slots",
        "made in place",
        '    draft = spool.path("slots", f"{slot}.{nonce}")\n',
        '    draft = spool.path("slots", str(slot))\n',
        "a slot appears whole, and once",
    ),
    far(
        "queuer",
        "hang on and on",
        "        if not isinstance(answer, batch.Submitted):\n            break\n",
        "",
        "after a submission without an answer no other is tried in the same look",
    ),
    far(
        "queuer",
        "cancel on and on",
        "if one.dead is not None and not reaping.bury(spool, one):\n            break",
        "if one.dead is not None and reaping.bury(spool, one) is None:\n            break",
        "after a cancel that hangs no other is tried in the same look",
    ),
    far(
        "dismissal",
        "cancel on and on",
        "        if hangs:\n",
        "        if False:\n",
        "after a cancel that hangs no other is tried",
        "tests/unit/test_queuer.py",
    ),
    far(
        "queuer",
        "submit again",
        "    if isinstance(answer, batch.Unclear):",
        "    if False:",
        "an unclear answer is resolved by looking for the pilot",
    ),
    far(
        "queuer",
        "no back-off",
        " and backoff.wait_s(spool, policy.recipe) <= 0:",
        ":",
        "after failures the next submission waits",
    ),
    far(
        "queuer",
        "slot kept",
        "    slots.free(spool, slot, name)\n    backoff",
        "    backoff",
        "a refused pilot gives its slot back",
    ),
    far(
        "lookout",
        "nobody adopts",
        "        if not any(files.exists(paper) for paper in papers):",
        "        if False:",
        "a pilot without a folder is looked for, too",
    ),
    far(
        "verbs",
        "another attempt's result",
        '        if result.get("id") != found.job or result.get("attempt") != found.starts:',
        "        if False:",
        "a result belongs to the ticket's attempt",
    ),
    far(
        "verbs",
        "another pilot's result",
        '        if result.get("pilot") != found.pilot:',
        "        if False:",
        "a result is of the ticket's pilot",
    ),
    far(
        "verbs",
        "another host's job",
        "        if ticket.instance_of(value) != self._instance:",
        "        if False:",
        "a service host touches its own jobs only",
    ),
    far(
        "leftovers",
        "sweep what is known",
        "            if job not in known and self._changed",
        "            if self._changed",
        "a sweep leaves jobs alone that a record knows",
    ),
    far(
        "leftovers",
        "sweep what is young",
        " and self._changed(job, mine) < before\n",
        "\n",
        "a sweep leaves alone what changed lately",
    ),
    far(
        "leftovers",
        "litter may be published",
        "        return incoming if len(tickets) > len(incoming) else []",
        "        return incoming",
        "a sweep leaves the only ticket of a job",
    ),
    far(
        "channel",
        "no silence",
        "        if not select.select([self._reader], [], [], self._silence_s)[0]:\n            raise",
        "        while not select.select([self._reader], [], [], self._silence_s)[0]:\n            continue\n            raise",
        "a far end without a near end leaves",
    ),
    near(
        "journal",
        "any line",
        'if text[:9] != b"%08x " % checksum(content) or content[-1:]',
        "if content[-1:]",
        "of a line that is not whole nothing is believed",
    ),
    near(
        "journal",
        "an older paper",
        "                    if job in self._lines:\n                        self._lines[job].papers.cl",
        "                    if False:\n                        self._lines[job].papers.cl",
        "a damaged line may have held a newer paper",
    ),
    near(
        "journal",
        "damage is kept",
        "                    self._has_damage = True\n",
        "",
        "what is damaged between whole lines does not stay",
    ),
    near(
        "journal",
        "behind a lost newline",
        "                rest, whole = _last_of(text)\n",
        '                rest, whole = b"", None\n',
        "a line counts though the end of the one before it is damaged",
    ),
    near(
        "journal",
        "what memory says",
        "            self._read_from(self._unsure)\n            since",
        "            since",
        "after a failure what stands on the disk counts",
    ),
    near(
        "journal",
        "believed at once",
        "            files.write_end(self.path, since, [text], kept=self._end)\n",
        "",
        "what a disk has failed to write once is written again before it counts",
    ),
    near(
        "journal",
        "ever longer",
        "        if self._end > self._limit:\n",
        "        if False:\n",
        "a journal does not grow without bounds",
    ),
    near(
        "records",
        "unsaved stays in memory",
        "            self._reload(steps)\n",
        "            pass\n",
        "of a record whose saving failed, what stands on the disk counts",
    ),
    near(
        "records",
        "begun and believed",
        "            if record.phase in BEGUN:\n",
        "            if False:\n",
        "what a killed pass wrote is durable before it is acted on",
    ),
    near(
        "submitter",
        "no word of lost records",
        "            self.records.miss(state.lost(self.records))\n",
        "",
        "a job that was taken and of which the journal says nothing is told",
    ),
    near(
        "submitter",
        "answered before",
        "        answered = self.state.answered(self.records)\n",
        "        answered = []\n",
        "what was answered is not done again when an older journal comes back",
    ),
    near(
        "submitter",
        "again what was done",
        "        left = [r for r in known if self._next(r) == step]\n",
        "        left = known\n",
        "a step that failed for a batch is not made again for those for whom it was written down",
    ),
    far(
        "attempt",
        "uncertain start forgotten",
        "            if error.errno in NO_ROOM or (error.errno in NOT_THE_JOB and error.filename):\n",
        "            if error.errno in NOT_THE_JOB:\n",
        "the folder of a start that may have begun is not used again",
    ),
    far(
        "spool",
        "published before",
        "        found = self.tickets_of(again) if again else {}\n",
        "        again, found = [], {}\n",
        "a job that the journal has forgotten to be published is not published again",
    ),
    far(
        "claims",
        "claims forgotten",
        "                if taken:\n                    break",
        "                if False:\n                    break",
        "a claim that fails loses none of those before it",
    ),
    far(
        "tenure",
        "claims unknown",
        "            if ticket.name not in known:\n",
        "            if False:\n",
        "a ticket that is the pilot's and that it does not know is given back",
    ),
)

DOUBTING = "tests/integration/test_doubts.py"
DAMAGED = "tests/integration/test_damaged_files.py"
PASSING = "tests/unit/test_passing_errors.py"
PORTIONS = "tests/unit/test_portions.py"

PATIENCE = (
    near(
        "steps",
        "believe one look",
        "            if not plan.is_believed(record.doubts, self._state.elapsed.age_s(record.doubted_at)):",
        "            if False:",
        "what one look does not find on the cluster is looked for again",
        DOUBTING,
    ),
    near(
        "collecting",
        "empty streams",
        "        doubt = promised or _short(found, streams)\n",
        "        doubt = promised\n",
        "a stream that is shorter than the result says is looked for again",
        DOUBTING,
    ),
    near(
        "mending",
        "collect onto ours",
        "    placing.unplace(record)\n",
        "",
        "what stood at a destination is back before a result is collected again",
        DAMAGED,
    ),
    near(
        "portions",
        "all again",
        "                self._note(step, len(portion) // PART)\n",
        "                pass\n",
        "after a kill a step takes fewer jobs",
        PORTIONS,
    ),
    near(
        "state",
        "another machine",
        "        if error.errno in files.PASSING:\n            raise\n    return text",
        "        pass\n    return text",
        "a machine whose id cannot be read is not another one",
        PASSING,
    ),
    near(
        "settling",
        "hopeless drops",
        "        if error.errno in files.PASSING:\n            raise\n",
        "",
        "a drop that cannot be read now is not hopeless",
        PASSING,
    ),
    far(
        "files/looking",
        "no permission",
        "        effects.access(path, mode)\n        return True\n    except OSError as error:\n        if error.errno in PASSING:",
        "        effects.access(path, mode)\n        return True\n    except OSError as error:\n        if False:",
        "a call that fails is not the answer no",
        PASSING,
    ),
    far(
        "session",
        "deletes while others wait",
        "if verbs.littered and not channel.has_input(QUIET_S):",
        "if verbs.littered:",
        "a disk is left alone while the near end is busy with it",
        "tests/integration/test_session.py::test_the_trash_is_left_alone_while_the_near_end_is_busy",
    ),
    far(
        "session",
        "deletes until it is done",
        "verbs.tidy(lambda: not channel.has_input())",
        "verbs.tidy(lambda: True)",
        "deleting ends when the near end asks for something",
        "tests/integration/test_session.py",
    ),
)

WRITTEN: tuple[Written, ...] = (
    *TAKING,
    *STAGING,
    *WATCHING,
    *ANSWERING,
    *OURSELVES,
    *PILOTS,
    *PATIENCE,
)
