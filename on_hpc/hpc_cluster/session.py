"""The far end of a session: the program that the service host starts over SSH.

    hpc_session serve --workspace W --session S --instance I     the control channel
    hpc_session data  --workspace W --session S --instance I     one more, for big files
    hpc_session VERB [JOB...] [--workspace W] [--instance I] [--args JSON]     for a person

On stdout comes a start marker first, since logins print banners, or a refusal with its reason. Then
a channel carries requests for `verbs`, one JSON line in and one out, and those for `frames`, which
are performed one after the other in the order in which they come; the near end need not wait for an
answer before it asks on. The channel is kept on descriptors of its own, and 0 and 1 become
/dev/null and stderr, so that no program that is started here reads or writes the conversation.

What performs requests is loaded only then: the marker travels meanwhile.

It leaves when its input ends or is silent for a minute (`channel`). What goes wrong is an answer; a
traceback goes to stderr, never to stdout.
"""

import errno
import json
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any, Dict, List, NamedTuple, Optional

from hpc_cluster import ACCEPTED, PROTOCOL, VERSION, files, ticket
from hpc_cluster.channel import Channel, Ended, Misspoken
from hpc_cluster.errors import ClusterError, UsageError, WorkspaceError
from hpc_cluster.spool import Spool

if TYPE_CHECKING:
    import argparse

    from hpc_cluster.frames import Frames
    from hpc_cluster.verbs import Verbs

MARKER = b"\x1eHPC_BATCH "
REFUSAL = b"\x1eHPC_BATCH_ERROR "
"""A line of the far end begins with one of these; RECORD SEPARATOR is in no banner."""

CHANNELS = ("serve", "data")

ASKED = ["--workspace", "--session", "--instance"]
"""What a service host tells with each channel that it wants, in this order."""


class Asked(NamedTuple):
    """The channel that is wanted."""

    verb: str
    workspace: str
    session: str
    instance: str


QUIET_S = 2.0
"""The trash is emptied when nothing was asked for so long, or when the near end has gone."""

EXIT_USAGE = 2
EXIT_FAILED = 1
EXIT_CONFIG = 78


def main(argv: Optional[List[str]] = None) -> int:
    """Run one far end, or one verb for a person; return the exit status."""
    words = sys.argv[1:] if argv is None else argv
    asked = _asked(words)
    os.umask(0o077)
    if asked is not None:
        return _converse(asked)
    args = _parser(words).parse_args(words)
    if args.verb in CHANNELS:
        return _converse(Asked(args.verb, args.workspace, args.session, args.instance or ""))
    return _answer_a_person(args)


def _asked(words: List[str]) -> Optional[Asked]:
    """Read what service hosts say; None for what only argparse understands.

    It takes as long to load as all else that comes before the marker.
    """
    if len(words) == 7 and words[0] in CHANNELS and words[1::2] == ASKED:
        return Asked(words[0], words[2], words[4], words[6])
    return None


def _parser(argv: List[str]) -> "argparse.ArgumentParser":
    import argparse

    known = list(CHANNELS)
    if not set(CHANNELS).intersection(argv[:1]):
        from hpc_cluster.verbs import VERBS

        known += VERBS
    parser = argparse.ArgumentParser(
        prog="hpc_session",
        description="The cluster's end of hpc_batch. `serve` and `data` talk to a service host; "
        "the other verbs print their answer as JSON.",
    )
    parser.add_argument("verb", choices=known)
    parser.add_argument("job", nargs="*", help="ids of jobs (cancel, purge, tail, publish)")
    parser.add_argument("--workspace", default=_default_workspace())
    parser.add_argument("--session", default=os.urandom(8).hex(), help=argparse.SUPPRESS)
    parser.add_argument("--instance", help="the service host; may be left out where there is one")
    parser.add_argument("--args", default="{}", help="further arguments of the verb, as JSON")
    return parser


def _default_workspace() -> str:
    """Return on_hpc/workspace of the checkout this file lies in."""
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    return os.path.join(here, "workspace")


# ---- a service host asks ---------------------------------------------------------------------


def _converse(args: Asked) -> int:
    """Serve one channel on the standard streams until the near end goes."""
    reader, writer = os.dup(0), os.dup(1)
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        channel = Channel(reader, writer)
    except RuntimeError as error:
        # RACE: none; the machine has no room for a thread now.
        print(f"hpc_session: {error}", file=sys.stderr)
        return EXIT_FAILED
    try:
        try:
            spool, made = _begin(args)
        except (UsageError, WorkspaceError) as error:
            refusal = {"kind": error.kind, "message": str(error)}
            channel.write(REFUSAL + files.to_json(refusal))
            return EXIT_CONFIG
        except OSError as error:
            channel.write(REFUSAL + files.to_json(_described(error)))
            return EXIT_FAILED
        channel.write(MARKER + files.to_json(_greeting()))
        from hpc_cluster.frames import Frames
        from hpc_cluster.verbs import Verbs

        verbs = Verbs(spool, args.session, args.instance, channel.pause)
        verbs.made = made
        frames = Frames(spool, args.session, args.instance, channel)
        try:
            _serve(verbs, frames, channel)
        except Ended:
            frames.release()
            verbs.tidy(lambda: True)
            raise
        finally:
            frames.release()
    except Ended:
        return 0
    return EXIT_USAGE


def _begin(args: Asked) -> Any:
    """Check the arguments and return the spool, and whether it was made just now."""
    if not ticket.is_random(args.session) or not ticket.is_instance(args.instance):
        raise UsageError("--session or --instance is missing or malformed")
    if args.verb == "serve":
        return Spool.make(args.workspace)
    return Spool.open(args.workspace), False


def _greeting() -> Dict[str, Any]:
    return {
        "protocol": PROTOCOL,
        "accepts": list(ACCEPTED),
        "version": VERSION,
        "python": "{}.{}.{}".format(*sys.version_info[:3]),
        "frames": True,
    }


def _serve(verbs: "Verbs", frames: "Frames", channel: Channel) -> None:
    """Perform one request after the other. Raises Ended; returns when they make no sense."""
    while True:
        # Who has just asked for that is busy with it: nobody's disk is to be disturbed meanwhile.
        if verbs.littered and not channel.has_input(QUIET_S):
            verbs.tidy(lambda: not channel.has_input())
        try:
            request = channel.request()
            if "verb" not in request:
                with channel.working():
                    frames.perform(request)
                continue
        except Ended:
            raise
        except Exception as error:
            known = UsageError(str(error)) if isinstance(error, Misspoken) else error
            channel.say({"n": None, "ok": False, "error": _described(known)})
            return
        answer = {"n": request.get("n")}
        try:
            with channel.working():
                answer.update(ok=True, result=verbs.do(request.get("verb"), request.get("args")))
        except Ended:
            raise
        except Exception as error:
            answer.update(ok=False, error=_described(error))
        channel.say(answer)


def _described(error: Exception) -> Dict[str, str]:
    """Return an error as it travels; one that nobody expected is traced on stderr."""
    if isinstance(error, ClusterError):
        return {"kind": error.kind, "message": str(error)}
    if isinstance(error, OSError):
        message = error.strerror or str(error)
        if error.filename is not None:
            message += ": " + files.from_bytes(os.fsencode(error.filename))
        return {"kind": errno.errorcode.get(error.errno or 0, "EIO"), "message": message}
    import traceback

    traceback.print_exc(file=sys.stderr)
    sys.stderr.flush()
    return {"kind": "bug", "message": f"{type(error).__name__}: {error}"}


# ---- a person asks ---------------------------------------------------------------------------


def _answer_a_person(args: "argparse.Namespace") -> int:
    """Perform one verb and print its answer."""
    from hpc_cluster.verbs import Verbs

    try:
        spool = Spool.open(args.workspace)
        request = json.loads(args.args)
        if args.job and isinstance(request, dict):
            request["jobs"], request["job"] = args.job, args.job[0]
        instance = args.instance or _only_instance(spool, args.job)
        verbs = Verbs(spool, args.session, instance, time.sleep)
        answer = verbs.do(args.verb, request)
    except (ClusterError, OSError, ValueError) as error:
        print(f"hpc_session: {error}", file=sys.stderr)
        return EXIT_FAILED
    print(json.dumps(answer, indent=4, sort_keys=True))
    verbs.tidy(lambda: True)
    return 0


def _only_instance(spool: Spool, jobs: List[str]) -> str:
    """Return the instance that is meant when none is given."""
    if jobs:
        return ticket.instance_of(jobs[0])
    known = [name for name in files.names(spool.path("done")) if ticket.is_instance(name)]
    if len(known) != 1:
        raise UsageError("give --instance: this workspace knows {}".format(known or "none yet"))
    return known[0]


if __name__ == "__main__":
    sys.exit(main())
