"""The command line `hpc-batch [-c CONFIG] VERB`, and `hpc_submitter CONFIG` for cron.

    arguments   what may be typed, and the values it becomes (requests)
    site        which dropbox, state and configuration are meant
    user        submit run wait check cancel retry
    looking     list show logs
    checking    lint render
    operator    status pause resume config clean demo
    passing     pass
    explaining  explain
    init        init
    doctoring   doctor
    deploying   deploy
    pilots      pilot
    cron        cron
    asking      questions to a person on a terminal
    output      JSON, tables, errors

A verb is a function of its request and the output that returns an exit code. What it cannot do it
raises; here every error becomes one sentence and a code, and what nobody expected becomes code 70
and a traceback in a file, never one on a user's screen.
"""

from __future__ import annotations

import contextlib
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Callable, NoReturn, Sequence

from hpc_batch.cli import exit_codes
from hpc_batch.cli.output import CommandError, Output, as_command_error, silence
from hpc_batch.cli.request import Pass, Request
from hpc_batch.errors import HpcBatchError
from hpc_cluster import files

VERBS = {
    "Submit": "user.submit",
    "Run": "user.run",
    "Wait": "user.wait",
    "Check": "user.check",
    "Cancel": "user.cancel",
    "Retry": "user.retry",
    "List": "looking.list_jobs",
    "Show": "looking.show",
    "Logs": "looking.logs",
    "Lint": "checking.lint",
    "Render": "checking.render",
    "Overview": "operator.status",
    "Pause": "operator.pause",
    "Resume": "operator.resume",
    "Pass": "passing.run_pass",
    "ShowConfig": "operator.show_config",
    "Clean": "operator.clean",
    "Demo": "operator.run_demo",
    "Explain": "explaining.explain",
    "Init": "init.init",
    "Doctor": "doctoring.doctor",
    "Deploy": "deploying.deploy",
    "Pilots": "pilots.pilot",
    "Cron": "cron.cron",
}
"""Module and function of each request; a module is loaded when a verb of it is typed."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run `hpc-batch` and return its exit code."""
    from hpc_batch.cli.arguments import parse

    return _run("hpc-batch", sys.argv[1:] if argv is None else argv, parse)


def hpc_submitter(argv: Sequence[str] | None = None) -> int:
    """Run `hpc_submitter` and return its exit code."""
    return _run("hpc_submitter", sys.argv[1:] if argv is None else argv, parse_submitter)


def parse_submitter(argv: Sequence[str]) -> Request:
    """Return what was typed. What cron usually says, a CONFIG alone, needs no argparse."""
    if len(argv) == 1 and not argv[0].startswith("-"):
        return Pass(Path(argv[0]), None, json=False, debug=False, nocleanup=False, email=None)
    from hpc_batch.cli import parser

    return parser.parse_submitter(argv)


def run_hpc_submitter() -> NoReturn:
    """Be the program `hpc_submitter`.

    A pass closes all that it opened; to take the interpreter apart as well would take longer than
    many a pass that finds nothing to do.
    """
    code = hpc_submitter()
    with contextlib.suppress(OSError):
        # RACE: none; who was to read this has gone.
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _run(program: str, argv: Sequence[str], parse_them: Callable[[Sequence[str]], Request]) -> int:
    output = Output("--json" in argv, program)
    request: Request | None = None
    try:
        request = parse_them(argv)
        output = Output(request.json, program)
        module, _, function = VERBS[type(request).__name__].partition(".")
        code: int = getattr(import_module(f"hpc_batch.cli.{module}"), function)(request, output)
        return code
    except SystemExit as end:  # --help and --version
        return int(end.code or 0)
    except BrokenPipeError:
        silence()
        return exit_codes.BROKEN_PIPE
    except KeyboardInterrupt:
        output.talk(f"{program}: interrupted")
        return exit_codes.INTERRUPTED
    except CommandError as error:
        return output.fail(error)
    except HpcBatchError as error:
        return output.fail(as_command_error(error))
    except OSError as error:
        if request is not None and request.debug:
            _tell_traceback(request)
        where = f": {os.fsdecode(error.filename)}" if error.filename is not None else ""
        what = error.strerror or str(error) or type(error).__name__
        code = exit_codes.TEMPORARY if error.errno in files.PASSING else exit_codes.FAILED
        return output.fail(CommandError(code, "system", f"{what.lower()}{where}"))
    except MemoryError:
        return output.fail(CommandError(exit_codes.TEMPORARY, "system", "not enough memory"))
    except Exception as error:
        where = _tell_traceback(request)
        what = f"this is a bug in hpc_batch: {type(error).__name__}: {error}"
        hint = f"please report it with the traceback, which is {where}"
        return output.fail(CommandError(exit_codes.BUG, "bug", what.split("\n")[0], hint))


def _tell_traceback(request: Request | None) -> str:
    """Write the current traceback where it belongs and return the place in words."""
    from hpc_batch.cli.site import write_traceback

    return write_traceback(request)
