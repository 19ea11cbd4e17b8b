"""Source lines for a page: highlighted, numbered, with the lines around them where the file is still what ran."""

import io
import tokenize
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

AROUND = 3  # lines before and after
LONGEST = 40  # lines of one statement
WIDEST = 400  # characters of a line
FOLDERS = 2  # of a path, from its end, that a person needs to recognise it


def listing(place: Mapping[str, Any]) -> dict[str, Any]:
    """`{"file", "path", "line", "lines": [{"number", "html", "blamed"}]}` of one side of a divergence.

    `html` is Pygments' and escaped. Context is read from the file only if it still holds the recorded lines.
    """
    first, last = place["line"], place["end_line"]
    blamed = place["code"].splitlines() or [""]
    before, after = _around(Path(place["file"]), first, last, blamed)
    text = [line[:WIDEST] for line in _dedented([*before, *blamed[:LONGEST], *after], len(before))]
    start = first - len(before)
    opened = _open_string(Path(place["file"]), start) if before else []
    html = highlight("\n".join([*opened, *text]), PythonLexer(stripnl=False), HtmlFormatter(nowrap=True)).split("\n")
    html = html[len(opened) :]
    lines = [
        {"number": start + index, "html": Markup(html[index] if index < len(html) else ""), "blamed": False}
        for index in range(len(text))
    ]
    for line in lines[len(before) : len(text) - len(after)]:
        line["blamed"] = True
    if len(blamed) > LONGEST:  # what was cut stands between the statement and what follows it
        for line in lines[len(text) - len(after) :]:
            line["number"] += len(blamed) - LONGEST
    return {"file": short(place["file"]), "path": place["file"], "line": first, "lines": lines}


def short(file: str) -> str:
    """The end of a path."""
    return "/".join(Path(file).parts[-FOLDERS:])


def _around(path: Path, first: int, last: int, blamed: list[str]) -> tuple[list[str], list[str]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return [], []
    here = lines[first - 1 : last]
    if [line.strip() for line in here] != [line.strip() for line in blamed] or len(blamed) > LONGEST:
        return [], []
    blamed[:] = here  # with its first line's indentation
    return lines[max(0, first - 1 - AROUND) : first - 1], lines[last : last + AROUND]


def _open_string(path: Path, line: int) -> list[str]:
    """What opens the string, a docstring mostly, that a line stands in the middle of, as a line; else nothing."""
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline))
    except (OSError, ValueError, SyntaxError, tokenize.TokenError):
        return []
    around = (token for token in tokens if token.type == tokenize.STRING and token.start[0] < line <= token.end[0])
    text = next((token.string for token in around), "")
    return [text[: text.index(text[-1]) + 3]] if text else []  # with its prefix


def _dedented(lines: list[str], first: int) -> list[str]:
    """Without the indentation that all have. A statement alone begins without its own, its other lines have theirs."""
    if first == 0 and len(lines) > 1 and not lines[0].startswith(" "):
        return [lines[0], *_shifted(lines[1:], 4)]
    return _shifted(lines, 0)


def _shifted(lines: list[str], to: int) -> list[str]:
    indents = [len(line) - len(line.lstrip()) for line in lines if line.strip()]
    return [" " * to + line[min(indents, default=0) :] for line in lines]
