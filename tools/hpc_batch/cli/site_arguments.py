"""The verbs that set up and look after a site: init, doctor, deploy, pilot, cron."""

from __future__ import annotations

from typing import Any

from hpc_batch.cli.argument_types import add_dry_run, duration_s, period_min, setting
from hpc_batch.cli.requests import Cron, Deploy, Doctor, Init, Pilots


def add_site_verbs(verbs: Any) -> None:
    """Add them to the parsers of verbs."""
    init = verbs.add_parser(
        "init",
        help="write a configuration",
        description="Write a configuration and make the dropbox; on a terminal, ask for what is "
        "needed. The file is the one of -c, or ./hpc_batch.ini.",
    )
    init.add_argument(
        "--set",
        dest="settings",
        metavar="SECTION.KEY=VALUE",
        type=setting,
        action="append",
        default=[],
        help="a key of the configuration; may come again, and is not asked for",
    )
    init.add_argument("--non-interactive", action="store_true", help="ask nothing")
    init.add_argument(
        "--force", action="store_true", help="where there is a configuration, move it aside"
    )
    add_dry_run(init)
    init.set_defaults(shape=Init)

    doctor = verbs.add_parser(
        "doctor",
        help="check the whole installation",
        description="Check everything from the configuration to the cluster's scheduler, and say "
        "how to mend what is wrong. Exits with 0 when all is well or only warned about.",
    )
    doctor.add_argument("--deep", action="store_true", help="run a real job through everything")
    doctor.add_argument("--offline", action="store_true", help="connect to nothing")
    doctor.add_argument(
        "--only",
        metavar="CHECK,...",
        type=lambda text: [word for word in text.split(",") if word],
        default=[],
        help="only these checks, and quietly what they need; an unknown one lists all",
    )
    doctor.add_argument(
        "--timeout",
        metavar="TIME",
        type=duration_s,
        default=3600.0,
        help="how long --deep waits for the job's answer (default: 1h)",
    )
    doctor.set_defaults(shape=Doctor)

    deploy = verbs.add_parser(
        "deploy",
        help="bring this release to the cluster",
        description="Copy the cluster's side of this release to [hpc_env] scripts, over the login "
        "that passes use, and switch to it in one step. Pilots keep the code they were submitted "
        "with.",
    )
    deploy.add_argument(
        "--force",
        action="store_true",
        help="move aside what was not deployed (a checkout), and allow an older release",
    )
    add_dry_run(deploy)
    deploy.set_defaults(shape=Deploy)

    pilot = verbs.add_parser(
        "pilot",
        help="the pilots: show, submit, cancel",
        description="Show the pilots as the scheduler and they themselves tell; submit one now; or "
        "cancel them: their jobs go back to waiting.",
    )
    pilot.add_argument(
        "what",
        metavar="show|submit|cancel",
        choices=["show", "submit", "cancel"],
        nargs="?",
        default="show",
    )
    pilot.add_argument(
        "pilots", metavar="PILOT", nargs="*", help="with cancel: these (default: all)"
    )
    pilot.add_argument("-y", "--yes", action="store_true", help="with cancel: do not ask")
    add_dry_run(pilot)
    pilot.set_defaults(shape=Pilots)

    cron = verbs.add_parser(
        "cron",
        help="the cron line: show, install, remove",
        description="Keep a marked block with the line for this configuration in the crontab of "
        "this account.",
    )
    cron.add_argument(
        "what",
        metavar="show|install|remove",
        choices=["show", "install", "remove"],
        nargs="?",
        default="show",
    )
    cron.add_argument(
        "--every",
        metavar="TIME",
        type=period_min,
        default=2,
        help="with install: the period (default: 2m)",
    )
    cron.add_argument("-y", "--yes", action="store_true", help="do not ask on a terminal")
    add_dry_run(cron)
    cron.set_defaults(shape=Cron)
