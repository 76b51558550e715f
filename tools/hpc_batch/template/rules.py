"""From the context of a placeholder to the form of its reference, or to a refusal.

The references are variables of the preamble, so a mistake about the context can split a word, but
never run a command; except where the shell evaluates numbers or names, which is why those places
take integers and trusted names only.
"""

from __future__ import annotations

from hpc_batch.template.preamble import PREFIX
from hpc_batch.template.shape import Spot

QUOTED = '"${%s}"'
PLAIN = "${%s}"
SINGLE = "'\"${%s}\"'"
ANSI = "'\"${%s}\"$'"
NUMBER = "%s"

FORMS = {
    "bare": QUOTED,
    "assign": QUOTED,
    "redirect": QUOTED,
    "herestring": QUOTED,
    "pattern": QUOTED,
    "cond": QUOTED,
    "command": QUOTED,
    "dq": PLAIN,
    "sq": SINGLE,
    "ansi": ANSI,
    "heredoc": PLAIN,
    "heredoc_tab": PLAIN,
    "param": QUOTED,
    "param_dq": PLAIN,
    "param_pattern": QUOTED,
    "param_pattern_dq": QUOTED,
    "subscript": PLAIN,
    "arith": NUMBER,
    "param_arith": NUMBER,
}
"""The reference in each context; in arithmetic without `$`, because 1-$x with -5 is no number."""

LITERAL = frozenset({"heredoc_q", "heredoc_q_tab", "directive"})
"""Contexts without expansions: the value itself must stand there, if it can."""

UNTOUCHED = frozenset({"comment"})

INTEGER = frozenset({"arith", "param_arith", "subscript"})
"""Contexts that the shell evaluates; only integers may stand there."""

UNLIMITED = frozenset({"heredoc", "heredoc_tab", "heredoc_q", "heredoc_q_tab", "herestring"})
"""Contexts in which a value is no argument, so that the kernel's limit does not hold."""


def reference(context: str, variable: str) -> str:
    """Return the text that stands for a variable of the preamble in this context."""
    return FORMS[context] % (PREFIX + variable)


def refusal(spot: Spot, *, integer: bool, trusted: bool) -> str | None:
    """Return why no value may stand at this spot, and the way out; None where one may."""
    name = spot.placeholder.name
    if spot.refusal is not None:
        return spot.refusal
    if spot.context == "locale":
        return 'it stands in $"…", which is translated; remove the dollar'
    if spot.context in INTEGER and not integer:
        way_out = f"declare it: #HPC --arg {name}:int (or write <<{name}|int>>)"
        return f"the shell would evaluate the value as a number; {way_out}"
    if spot.command_word and not trusted:
        way_out = "write the program's name, or set it in [hpc_env]"
        return f"a job's value would choose the program that runs; {way_out}"
    return None
