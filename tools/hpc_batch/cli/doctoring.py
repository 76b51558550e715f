"""The verb doctor: every check, one line each, with the fix on the line that needs one."""

from __future__ import annotations

from hpc_batch.cli import exit_codes
from hpc_batch.cli.output import CommandError, Output
from hpc_batch.cli.requests import Doctor
from hpc_batch.doctor import CHECKS, NAMES, Finding, Subject, examine, is_wrong

DEEP = "deep"


def doctor(request: Doctor, output: Output) -> int:
    """Check the installation; 0 when nothing is wrong, 78 for the configuration, else 1."""
    unknown = [name for name in request.only if name not in NAMES]
    if unknown:
        text = f"there is no check {unknown[0]!r}"
        raise CommandError(exit_codes.USAGE, "usage", text, f"there are {', '.join(NAMES)}")
    with_deep = request.deep or DEEP in request.only
    checks = [check for check in CHECKS if check.name != DEEP or with_deep]
    subject = Subject(request.config, output.talk, request.timeout, request.offline)
    only = [*request.only, *([DEEP] if request.deep and request.only else [])]
    findings: list[Finding] = []
    for finding in examine(checks, subject, only):
        findings.append(finding)
        if not output.json:
            output.line(_line(finding))
    if output.json:
        rows = [finding.document() for finding in findings]
        output.document("doctor", {"ok": not is_wrong(findings), "checks": rows})
    else:
        output.talk(_summary(findings))
    if any(f.check == "config" and f.level == "error" for f in findings):
        return exit_codes.CONFIGURATION
    return exit_codes.FAILED if is_wrong(findings) else exit_codes.OK


def _line(finding: Finding) -> str:
    fix = f"  -> {finding.fix}" if finding.fix else ""
    return f"{finding.level:<8} {finding.check:<10} {finding.detail}{fix}"


def _summary(findings: list[Finding]) -> str:
    counts: dict[str, int] = {}
    for finding in findings:
        counts[finding.level] = counts.get(finding.level, 0) + 1
    return ", ".join(f"{count} {level}" for level, count in counts.items())
