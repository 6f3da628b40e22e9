"""A report as text for people, and as JSON for programs."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict

from app.doctor.checks import Report
from app.doctor.findings import Severity, counted

INDENT = "  "


def as_json(report: Report) -> str:
    """``findings`` have ``code``, ``severity``, ``message``, ``advice`` and ``facts``."""
    count = _count(report)
    document = {
        "problems": count[Severity.PROBLEM],
        "notices": count[Severity.NOTICE],
        "findings": [asdict(finding) for finding in report.findings],
        "without_list": report.without_list,
    }
    return json.dumps(document, indent=2, ensure_ascii=False)


def error_as_json(code: str, message: str) -> str:
    """``error`` says why there is no report: it has ``code`` and ``message``, which may have several lines."""
    return json.dumps({"error": {"code": code, "message": message}}, indent=2, ensure_ascii=False)


def as_text(report: Report) -> str:
    """Problems, then notices, then the number of each."""
    return "\n".join(_lines(report))


def _lines(report: Report) -> Iterator[str]:
    width = max((len(finding.code) for finding in report.findings), default=0)
    for severity in Severity:
        findings = [finding for finding in report.findings if finding.severity is severity]
        if findings:
            yield f"{severity}s"
        for finding in findings:
            yield f"{INDENT}{finding.code:{width}}{INDENT}{finding.message}"
            yield f"{INDENT}{'':{width}}{INDENT}→ {finding.advice}"
        if findings:
            yield ""
    if report.without_list:
        yield f"not compared, because the provider has no list: {', '.join(report.without_list)}"
    yield _summary(report)


def _summary(report: Report) -> str:
    count = _count(report)
    words = [counted(count[severity], severity, f"{severity}s") for severity in Severity if count[severity]]
    return ", ".join(words) or "nothing found"


def _count(report: Report) -> Counter[Severity]:
    return Counter(finding.severity for finding in report.findings)
