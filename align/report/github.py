"""GitHub Actions: the summary on the job's page, and annotations on the port's own source lines."""

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from align.report.lines import by_line, likewise

SHOWN = 10  # GitHub shows ten annotations a step and drops the others


def report(verdict: Mapping[str, Any], summary: str, to: TextIO = sys.stderr) -> None:
    """Do both, where GitHub Actions runs this; elsewhere nothing."""
    if os.environ.get("GITHUB_ACTIONS") != "true":
        return
    for line in annotations(verdict, Path(os.environ.get("GITHUB_WORKSPACE", "."))):
        print(line, file=to)
    if page := os.environ.get("GITHUB_STEP_SUMMARY"):
        try:
            with open(page, "a", encoding="utf-8") as file:
                file.write(summary)
        except OSError as error:  # the reports are worth more than this copy
            print(f"align: warning: GITHUB_STEP_SUMMARY {page}: {error.strerror}", file=to)


def annotations(verdict: Mapping[str, Any], workspace: Path) -> Iterator[str]:
    """`::error` commands, one a wrong source line; files as the workspace names them."""
    shown = 0
    for group in by_line(verdict["divergences"]):
        found = group[0]
        place = found["port"]
        if not place or shown == SHOWN:
            continue
        shown += 1
        file = Path(place["file"])
        if file.is_absolute() and file.is_relative_to(workspace.absolute()):
            file = file.relative_to(workspace.absolute())
        told = found["what"] if not found["cause"] else found["cause"]["text"]
        if others := likewise(group):
            told += f"; likewise in {len(others)} other module{'s' * (len(others) != 1)}"
        title = _property(f"{found['step']} {found['module'] or ''}".strip())
        where = f"file={_property(str(file))},line={place['line']},endLine={place['end_line']},title={title}"
        yield f"::error {where}::{_data(told)}"
    if verdict["verdict"] != "aligned" and not shown:
        blamed = f", first in step {verdict['blamed_step']}" if verdict["blamed_step"] else ""
        yield f"::error title=align::{_data(verdict['case'])}: {verdict['verdict']}{blamed}"


def _data(text: str) -> str:
    """Escaped as GitHub's workflow commands want it: docs.github.com, "Workflow commands for GitHub Actions"."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
