"""The cron line: one marked block in the account's crontab for each configuration.

    # hpc_batch begin /srv/hpc_batch/hpc_batch.ini (`hpc-batch cron` writes this block)
    1-59/2 * * * * /usr/bin/python3 /srv/hpc_batch/tools/hpc_submitter /srv/hpc_batch/hpc_batch.ini
    # hpc_batch end /srv/hpc_batch/hpc_batch.ini

Whatever else stands in the crontab stays as it is, byte for byte. `with_block` and `without_block`
are text to text; `read` and `write` speak to the system's crontab program. The minute at which a
period begins follows from the configuration's path, so that not every site knocks at a full hour.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import zlib
from pathlib import Path
from typing import Sequence

from hpc_batch.errors import ConfigError
from hpc_cluster import effects

PERIODS_MIN = (1, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30, 60)
"""The periods that cron can keep: divisors of an hour."""

TIMEOUT_S = 30


def line(config: Path, every_min: int) -> str:
    """Return the line for a configuration. Raises ConfigError for a path that cron cannot hold."""
    command = " ".join(shlex.quote(word) for word in [*program(), str(config)])
    if "\n" in command:
        raise ConfigError(f"{config!s}: a crontab cannot hold this path")
    # cron makes a newline of a bare percent sign, quoted or not.
    return f"{_minutes(config, every_min)} * * * * " + command.replace("%", r"\%")


def program() -> list[str]:
    """Return how cron starts a pass: absolute, for cron's PATH is short.

    From a checkout its hpc_submitter under the Python that runs now, else the installed program.
    """
    checkout = Path(__file__).resolve().parents[2]
    if (checkout / "tools/hpc_submitter").is_file() and (checkout / "on_hpc").is_dir():
        return [sys.executable, str(checkout / "tools/hpc_submitter")]
    for folder in (Path(sysconfig.get_path("scripts")), Path(sys.executable).parent):
        if os.access(folder / "hpc_submitter", os.X_OK):
            return [str(folder / "hpc_submitter")]
    return [sys.executable, "-m", "hpc_batch.cli", "pass", "-c"]


def with_block(text: str, config: Path, command: str) -> str:
    """Return a crontab with the block of a configuration, new or in the place of the old one."""
    begin, end = _marks(config)
    note = f"{begin} (`hpc-batch cron` writes this block)"
    block = f"{note}\n{command}\n{end}\n"
    found = _find(text, config)
    if found is not None:
        return text[: found[0]] + block + text[found[1] :]
    return text + ("\n" if text and not text.endswith("\n") else "") + block


def without_block(text: str, config: Path) -> str:
    """Return a crontab without the block of a configuration."""
    found = _find(text, config)
    return text if found is None else text[: found[0]] + text[found[1] :]


def installed(text: str, config: Path) -> str | None:
    """Return the lines within the block of a configuration; None when there is no block."""
    found = _find(text, config)
    if found is None:
        return None
    return "\n".join(text[found[0] : found[1]].splitlines()[1:-1])


def mentioned(text: str, config: Path) -> bool:
    """Tell whether any active line, in a block or by hand, names the configuration."""
    lines = [one for one in text.splitlines() if not one.lstrip().startswith("#")]
    return any(str(config) in one.replace(r"\%", "%") for one in lines)


def _find(text: str, config: Path) -> tuple[int, int] | None:
    """Return where the block begins and ends. Raises ConfigError for half a block."""
    begin, end = (re.escape(mark) for mark in _marks(config))
    begins = list(re.finditer(rf"^{begin}(?: \(.*)?\n", text, re.MULTILINE))
    ends = list(re.finditer(rf"^{end}(?:\n|\Z)", text, re.MULTILINE))
    if not begins and not ends:
        return None
    if len(begins) != 1 or len(ends) != 1 or ends[0].start() < begins[0].end():
        raise ConfigError(
            f"the crontab's block for {config} is damaged; mend it with `crontab -e`: it begins "
            f"with {_marks(config)[0]!r} and ends with {_marks(config)[1]!r}"
        )
    return begins[0].start(), ends[0].end()


def _marks(config: Path) -> tuple[str, str]:
    return f"# hpc_batch begin {config}", f"# hpc_batch end {config}"


def _minutes(config: Path, every_min: int) -> str:
    first = zlib.crc32(os.fsencode(config)) % every_min
    if every_min == 1:
        return "*"
    return str(first) if every_min == 60 else f"{first}-59/{every_min}"


# ---- the system's crontab --------------------------------------------------------------------


def read() -> str:
    """Return the account's crontab, "" when it has none. Raises ConfigError."""
    done = _run(["-l"])
    if done.returncode == 0:
        return done.stdout
    if "no crontab for" in done.stderr:
        return ""
    raise ConfigError(f"crontab -l failed: {done.stderr.strip() or done.returncode}")


def write(text: str) -> None:
    """Replace the account's crontab. Raises ConfigError with what crontab says."""
    done = _run(["-"], text)
    if done.returncode != 0:
        raise ConfigError(f"crontab refused it: {done.stderr.strip() or done.returncode}")


def _run(words: Sequence[str], text: str = "") -> subprocess.CompletedProcess[str]:
    program = shutil.which("crontab")
    if program is None:
        raise ConfigError("there is no program crontab here: install cron, or use a systemd timer")
    try:
        return effects.run(
            [program, *words],
            input=text,
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",
            env={**os.environ, "LC_ALL": "C"},
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ConfigError("crontab did not answer") from None
