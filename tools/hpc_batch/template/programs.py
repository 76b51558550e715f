"""Programs that evaluate what they are given: which words, and in which language.

The table is a heuristic: nobody can know every program. It covers what job scripts are seen to use;
everything else gets its arguments byte for byte.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Program:
    """Where a program finds code."""

    language: str
    """Named in the message; `shell` is what `|sh` quotes for."""
    way_out: str
    """What to write instead; `{x}` is the placeholder."""
    everything: bool = False
    """All arguments are code."""
    code: tuple[str, ...] = ()
    """Options whose value is code: letters (`c` for -c) and long ones (`--eval`)."""
    valued: tuple[str, ...] = ()
    """Other options that take a value, in the same form."""
    pairs: tuple[str, ...] = ()
    """Options that take two values."""
    files: tuple[str, ...] = ()
    """Options that name a file with the code, in the same form; then no operand is code."""
    operand: int | None = None
    """The operand that is code, if no option was, counted from 0. Where everything is code: how
    many operands leave the code to standard input."""
    remote: bool = False
    """Words with a colon are read by a shell on the other side."""
    stops: bool = True
    """No option is read behind the first operand."""
    stdin: bool = False
    """Without code in its arguments it reads it from standard input."""


_SHELL_WAY_OUT = "pass it as an argument: sh -c 'prog \"$1\"' _ {x}"
_STDIN_HINT = "; or quote it once more: <<{name}|sh>>"

_SHELL = Program(
    "shell", _SHELL_WAY_OUT + _STDIN_HINT, code=("c",), valued=("o", "O", "--rcfile"), stdin=True
)
_EVERYTHING = Program(
    "shell", "call the program directly, or quote the value: <<{name}|sh>>", everything=True
)
_COMMAND = Program("shell", _SHELL_WAY_OUT, code=("c", "--command"), stops=False)
_SSH_VALUED = tuple("BbcDEeFIiJLlmOopQRSWw")
_SCRIPT = Program("shell", "write the file's name, or set it in [hpc_env]", operand=0)
_REMOTE = replace(_EVERYTHING, everything=False, remote=True)


def _interpreter(language: str, way_out: str, *code: str, valued: tuple[str, ...] = ()) -> Program:
    return Program(language, way_out, code=code, valued=valued, stdin=True)


_QUEUE = Program("shell", _SHELL_WAY_OUT, code=("--wrap",), stdin=True)
_PYTHON = _interpreter(
    "Python", "pass it as an argument: python3 -c '… sys.argv[1] …' {x}", "c", valued=("W", "X")
)
_AWK = Program(
    "awk",
    "pass it as data: {name}={x} awk '… ENVIRON[\"{name}\"] …' file",
    code=("e", "--source"),
    valued=("F", "v", "--field-separator", "--assign"),
    files=("f", "--file"),
    operand=0,
)
_SQL = Program(
    "SQL",
    "write the statement to a file without the value, or declare the argument's type",
    stops=False,
    stdin=True,
)

PROGRAMS: dict[str, Program] = {
    **dict.fromkeys(("sh", "bash", "dash", "ksh", "zsh", "ash", "mksh", "fish", "csh"), _SHELL),
    **dict.fromkeys(("eval", "trap", "alias", "xargs", "watch", "pdsh", "clush"), _EVERYTHING),
    **dict.fromkeys(
        ("ssh", "rsh"), replace(_EVERYTHING, valued=_SSH_VALUED, stdin=True, operand=1)
    ),
    "parallel": replace(_EVERYTHING, valued=("j", "a"), stdin=True, operand=0),
    **dict.fromkeys(("source", "."), _SCRIPT),
    **dict.fromkeys(("sbatch", "qsub", "bsub", "at", "batch"), _QUEUE),
    **dict.fromkeys(("python", "python2", "python3", "pypy3"), _PYTHON),
    **dict.fromkeys(("su", "script", "flock"), _COMMAND),
    **dict.fromkeys(("scp", "rsync"), _REMOTE),
    **dict.fromkeys(("make", "gmake"), Program("make", "pass it in the environment", True)),
    "gnuplot": Program("gnuplot", "write the value to a file", code=("e",), stops=False),
    "expect": Program("Tcl", "pass it as an argument: $argv", code=("c",), stdin=True),
    "gdb": Program("gdb", "write the commands to a file", code=("-ex",), valued=("x",)),
    "tmux": _EVERYTHING,
    "perl": _interpreter("Perl", "pass it as an argument: perl -e '… $ARGV[0] …' {x}", "e", "E"),
    "ruby": _interpreter("Ruby", "pass it as an argument: ruby -e '… ARGV[0] …' {x}", "e"),
    "node": _interpreter(
        "JavaScript", "pass it as an argument: process.argv[1]", "e", "p", "--eval", "--print"
    ),
    "php": _interpreter("PHP", "pass it as an argument: $argv[1]", "r"),
    "lua": _interpreter("Lua", "pass it as an argument: arg[1]", "e"),
    "Rscript": _interpreter("R", "pass it as an argument: commandArgs(TRUE)", "e"),
    "R": _interpreter("R", "write a file and run it with Rscript FILE {x}", "e", valued=("f",)),
    "julia": _interpreter("Julia", "pass it as an argument: ARGS[1]", "e", "E", "--eval"),
    "octave": _interpreter("Octave", "pass it as an argument: argv()", "--eval"),
    "matlab": _interpreter("Matlab", "pass it in a variable: getenv", "r", "batch"),
    **dict.fromkeys(("awk", "gawk", "mawk", "nawk"), _AWK),
    "sed": Program(
        "sed",
        "use another program, such as awk with ENVIRON",
        code=("e", "--expression"),
        valued=("l",),
        files=("f", "--file"),
        operand=0,
        stops=False,
    ),
    "jq": Program(
        "jq",
        "pass it as data: jq --arg {name} {x} '… ${name} …' file",
        pairs=("--arg", "--argjson", "--slurpfile", "--rawfile"),
        valued=("L", "--indent", "--tab"),
        files=("f", "--from-file"),
        operand=0,
        stops=False,
    ),
    "bc": Program("bc", "declare the argument as a number", code=("e",), stdin=True),
    "sqlite3": replace(_SQL, code=("-cmd",), valued=("-separator",), operand=1),
    "psql": replace(_SQL, code=("c", "--command"), valued=("d", "h", "p", "U", "v")),
    "mysql": replace(_SQL, code=("e", "--execute"), valued=("h", "P", "u")),
}

_WRAPPERS = """
    exec command builtin env nohup nice time timeout srun mpirun mpiexec orterun singularity
    apptainer sudo stdbuf setsid ionice taskset numactl chrt find docker podman flock conda mamba
    micromamba unshare strace ltrace valgrind shifter ch-run enroot pixi poetry uv xvfb-run busybox
    doas chroot nsenter aprun jsrun ibrun catchsegv perf
"""
WRAPPERS = frozenset(_WRAPPERS.split())
"""Programs that run the program among their arguments."""

STARTERS = frozenset({"exec", "command", "builtin", "nohup", "setsid", "env", "coproc"})
"""Wrappers whose first operand is the program."""

DECLARING = frozenset({"declare", "typeset", "local", "export", "readonly"})

_SPECIAL_VARIABLES = """
    PS0 PS1 PS2 PS4 PROMPT_COMMAND BASH_ENV ENV IFS PATH LD_PRELOAD LD_LIBRARY_PATH LD_AUDIT
    PYTHONPATH PYTHONHOME PYTHONSTARTUP PERL5OPT PERL5LIB PERLLIB RUBYOPT RUBYLIB NODE_OPTIONS
    GIT_SSH_COMMAND GIT_SSH EDITOR VISUAL PAGER SHELLOPTS BASHOPTS
"""
SPECIAL_VARIABLES = frozenset(_SPECIAL_VARIABLES.split())
"""Variables that decide what is run; free text must not get into them."""
