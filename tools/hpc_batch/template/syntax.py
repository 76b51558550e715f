"""The interpreter's own opinion of a template: `bash -n`, `sh -n`, and shellcheck as advice.

The body of a rendered script does not depend on values, so it can be checked without any: every
placeholder is replaced by its reference, and nothing is run. Lines stay where they are.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess

from hpc_batch.template import SITE_NAMES, Template
from hpc_batch.template.compiled import Body, Part, Piece
from hpc_batch.template.finding import Finding
from hpc_batch.template.rules import FORMS, LITERAL, reference
from hpc_cluster import effects

TIMEOUT_S = 30
_MESSAGE = re.compile(r"^\S*?(?:bash|sh|dash|-): (?:line )?(?P<line>[0-9]+): (?P<text>.*)$")
_IGNORED = ("SC2154", "SC1090", "SC1091", "SC2034", "SC2317")
"""Variables of the preamble and sourced files are not in the text that shellcheck sees."""


def syntax_check(template: Template) -> list[Finding]:
    """Return what the template's shell and shellcheck say; runs both, where they are installed."""
    compiled = template.compiled(None, SITE_NAMES)
    if template.shell is None or compiled.findings:
        return []
    body = "".join(_dummy(part) for part in compiled.parts).encode("utf-8", "surrogateescape")
    return _shell(template, body) or _shellcheck(template, body)


def _dummy(part: Part) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, Body):
        return "".join(_dummy(inner) for inner in part.pieces)
    return _reference(part)


def _reference(piece: Piece) -> str:
    if piece.raw or piece.context in LITERAL or piece.context not in FORMS:
        return "x"
    return reference(piece.context, piece.variable)


def _run(argv: list[str], text: bytes) -> subprocess.CompletedProcess[bytes] | None:
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
    try:
        return effects.run(
            argv, input=text, capture_output=True, timeout=TIMEOUT_S, env=environment, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None


def _shell(template: Template, body: bytes) -> list[Finding]:
    names = ("bash",) if template.shell == "bash" else ("dash", "sh")
    program = next((p for p in map(shutil.which, names) if p), None)
    done = _run([program, "-n"], body) if program else None
    if done is None or done.returncode == 0:
        return []
    text = done.stderr.decode("utf-8", "replace")
    found = [_MESSAGE.match(line) for line in text.splitlines()]
    findings = [Finding(int(m["line"]), m["text"], template.name) for m in found if m]
    return findings or [Finding(None, f"{names[0]} -n: {text.strip()}", template.name)]


def _shellcheck(template: Template, body: bytes) -> list[Finding]:
    program = shutil.which("shellcheck")
    if program is None:
        return []
    argv = [program, "--format=json", "--severity=info", f"--shell={template.shell}"]
    done = _run([*argv, f"--exclude={','.join(_IGNORED)}", "-"], body)
    try:
        comments = json.loads(done.stdout) if done else []
    except ValueError:
        return []
    return [
        Finding(c["line"], f"shellcheck SC{c['code']}: {c['message']}", template.name, "advice")
        for c in comments
    ]
