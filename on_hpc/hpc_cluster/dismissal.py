"""Dismissal: an operator ends pilots.

`dismissed.json` is written first, so that nobody takes the pilot's end for a trouble of the batch
system or for a crash of its jobs; then the batch system is told. A pilot that runs hands its
tickets back when it is asked to stop; what it cannot hand back, because it is killed, the queuer
takes once the pilot is positively dead. Its slot becomes free then, too: nothing here declares a
pilot dead.
"""

from typing import Dict, Sequence

from hpc_cluster import batch, clock, files, lookout, pilot
from hpc_cluster.spool import Spool


def dismiss(spool: Spool, names: Sequence[str]) -> Dict[str, str]:
    """Ask the batch system to end pilots, and tell for each what came of it.

    "asked"; "gone": it has ended already, or never was; "unknown": the batch system did not answer,
    or does not list it now, and only what it lists is ended; else what went wrong, in words.
    """
    answer = dict.fromkeys(names, "gone")
    known = [pilot.read(spool, name) for name in names]
    infos = [info for info in known if info.get("submitted") and not info.get("dead")]
    hangs = False
    for seen in lookout.observe(spool, infos):
        info, name = seen.info, seen.info["pilot"]
        if seen.state is None:
            answer[name] = "unknown"
            continue
        if seen.state.state == batch.ENDED:
            continue
        if not files.exists(files.join(spool.pilot_folder(name), "dismissed.json")):
            pilot.write(spool, name, {"dismissed": clock.iso()}, "dismissed.json")
        if hangs:
            answer[name] = "the batch system did not answer"  # it would not answer now
            continue
        command = batch.dialect(info.get("batch", "local")).cancel(seen.state.native_id)
        captured = batch.run(command)
        hangs = captured.timed_out
        if captured.rc == 0 and not hangs:
            answer[name] = "asked"
        else:
            answer[name] = batch.last_lines(captured.stderr) or "the batch system did not answer"
    return answer
