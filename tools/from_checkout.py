"""Running from a bare checkout, nothing installed: what the programs beside this file begin with.

It must run under Python 3.6 and later, because it is what tells people that theirs is too old.
"""

import os
import sys

OLDEST = (3, 9)
NEEDED = ("yaml", "paramiko", "fabric", "jinja2", "filelock")
"""The top-level names of what setup.cfg requires of every pass."""


def prepare(tools, program):
    """Make the checkout's packages importable, in a Python that has what they need.

    Where this Python is too old or lacks something, the program starts again in the checkout's
    virtual environment; without one, it says how to make it and exits with 78 (configuration).
    """
    checkout = os.path.dirname(tools)
    lacking = _lacking()
    if lacking:
        python = os.path.join(checkout, ".venv", "bin", "python")
        if os.path.exists(python) and not _is_running(checkout):
            os.execv(python, [python, os.path.realpath(program)] + sys.argv[1:])
        venv, name = os.path.join(checkout, ".venv"), os.path.basename(program)
        sys.stderr.write(
            f"{name}: {lacking}; set it up with: "
            f"python3 -m venv {venv} && {venv}/bin/python -m pip install {checkout}\n"
        )
        sys.exit(78)
    sys.path[1:1] = [os.path.join(checkout, "on_hpc")]


def _lacking():
    """Return in words what this Python lacks, or nothing."""
    if sys.version_info < OLDEST:
        have, need = (".".join(map(str, v[:2])) for v in (sys.version_info, OLDEST))
        return f"Python {have} is too old, {need} or later is needed"
    from importlib.util import find_spec

    missing = [name for name in NEEDED if find_spec(name) is None]
    return f"this Python lacks {', '.join(missing)}" if missing else ""


def _is_running(checkout):
    """Tell whether this is the virtual environment's own Python already."""
    return os.path.realpath(sys.prefix) == os.path.realpath(os.path.join(checkout, ".venv"))
