"""What people read about the configuration: a commented sample, the reference page, the values.

All of it is made from the table, so that it cannot say anything else than what is parsed.
"""

from __future__ import annotations

import re
import textwrap
from typing import Mapping

from hpc_batch.config.reading import HIDDEN
from hpc_batch.config.table import ENVIRONMENT, ENVIRONMENT_DOC, KEYS, SECTIONS, Config, Key

_INTRODUCTION = """\
# The configuration

One `.ini` file: `[section]`, `key = value`; indented lines continue a value; lines that begin with
`#` or `;` are comments, and there are no comments behind a value. Nothing is interpolated or
unquoted: a passphrase may hold `%`, `$` and quotes. An empty value counts as absent. Unknown
sections and keys are errors, and so is what only a later version will know ("not in this version").
All problems of a file are reported at once.

- **Durations**: `90s`, `30m`, `8h`, `1d`, `1h30m`, `08:00:00`; a bare number counts seconds, but
  for `walltime`, where it counts minutes.
- **Sizes**: bytes, or `K`, `M`, `G`, `T` (powers of 1024).
- **Paths** are absolute; local ones may begin with `~/`.
- A file with a `passphrase`, the `key_file` and the `passphrase_file` must be readable by their
  owner alone (`chmod 600`), or they are refused.

This page is made from the table in `tools/hpc_batch/config/table.py`; do not edit it.
"""


def sample() -> str:
    """Return a commented configuration: what is needed is set, the rest shows its default."""
    lines = [
        "# hpc_batch: the configuration of a service host.",
        "# A line without '#' must be filled in; the others show a default or an example.",
        "",
    ]
    for section, shape in SECTIONS.items():
        lines += [f"[{section}]", *_comment(shape.__doc__ or "")]
        for key in (key for key in KEYS.values() if key.section == section):
            lines += ["", *_comment(key.doc), _sample_line(key)]
        lines.append("")
    lines += [f"[{ENVIRONMENT}]", *_comment("Names for templates; any further key is one more.")]
    for name, (example, when, doc) in ENVIRONMENT_DOC.items():
        lines += ["", *_comment(doc), f"{'' if when else '#'}{name} = {example}"]
    return "\n".join(lines) + "\n"


def compose(settings: Mapping[tuple[str, str], str]) -> str:
    """Return a commented configuration in which these (section, key) are set.

    What is needed and not set shows its example as a comment. Names that the table does not know
    are written all the same, so that reading the text says what is wrong with them.
    """
    left = dict(settings)
    lines: list[str] = []
    section = ""
    for line in [*sample().splitlines(), "[end]"]:
        if header := re.fullmatch(r"\[(\w+)\]", line):
            lines += _further(section, left)
            section = header[1]
        entry = re.fullmatch(r"#?(\w+) = .*", line)
        if entry is None or line.startswith("# "):
            lines.append(line)
        elif (section, entry[1]) in left:
            lines.append(_entry(entry[1], left.pop((section, entry[1]))))
        else:
            lines.append("#" + line.removeprefix("#"))
    lines[0] = "# hpc_batch: the configuration of a service host, made by `hpc-batch init`."
    lines[1] = "# A line with '#' shows a default or an example."
    for section in sorted({section for section, _ in left}):
        lines[-1:-1] = [f"[{section}]", *_further(section, left), ""]
    return "\n".join(lines[:-1]).rstrip("\n") + "\n"


def _further(section: str, left: dict[tuple[str, str], str]) -> list[str]:
    """Return the lines of keys of a section that the sample does not show; take them off."""
    names = [name for known, name in left if known == section]
    return [_entry(name, left.pop((section, name))) for name in names]


def _entry(name: str, value: str) -> str:
    """Return a line, or several: those that continue a value are indented."""
    return f"{name} = " + "\n    ".join(value.split("\n"))


def _sample_line(key: Key) -> str:
    if key.required:
        return f"{key.name} = {key.example}"
    if key.worked_out:
        return f"# default: {key.worked_out}\n#{key.name} = /absolute/path/to/{key.name}"
    if key.default:
        return f"#{key.name} = {key.default}"
    return f"# example:\n#{key.name} = {key.example}"


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, 98, initial_indent="# ", subsequent_indent="# ")


def reference() -> str:
    """Return the reference page, in Markdown."""
    parts = [_INTRODUCTION]
    for section, shape in SECTIONS.items():
        rows = [_row(key) for key in KEYS.values() if key.section == section]
        parts.append(_table(section, shape.__doc__ or "", rows))
    rows = []
    for name, (_, when, doc) in ENVIRONMENT_DOC.items():
        meaning = doc.replace("<<containers>>", "`<<containers>>`")
        rows.append(f"| `{name}` | text | {_need(when) or 'none'} | {meaning} |")
    about = "Names for templates: any key of letters, digits and `_`, case kept."
    parts.append(_table(ENVIRONMENT, about, rows))
    return "\n".join(parts)


def _table(section: str, about: str, rows: list[str]) -> str:
    head = ["| key | value | default | meaning |", "| --- | --- | --- | --- |"]
    return "\n".join([f"## `[{section}]`", "", about, "", *head, *rows, ""])


def _row(key: Key) -> str:
    default = f"`{key.default}`" if key.default else key.worked_out or _need(key.required) or "none"
    return f"| `{key.name}` | {key.kind.name} | {default} | {key.doc} |"


def _need(when: str) -> str:
    if not when:
        return ""
    return "required" if when == "always" else f"required {when}"


def masked(config: Config) -> list[tuple[str, str, str, str]]:
    """Return (section, key, value, "file" or "default") of every key; secrets are hidden."""
    rows = []
    for (section, name), key in KEYS.items():
        written = config.written.get((section, name))
        if written is not None:
            rows.append((section, name, written, "file"))
        else:
            value = getattr(getattr(config, section), name)
            text = HIDDEN if key.secret and value else key.default or str(value if value else "")
            rows.append((section, name, text, "default"))
    rows += [(ENVIRONMENT, name, value, "file") for name, value in config.env.items()]
    return rows
