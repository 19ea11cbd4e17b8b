"""`summary.md`: the verdict for a pull request or a CI page, bounded in size, worst rows first."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from align.report.lines import by_line, likewise

Row = Mapping[str, Any]

LONGEST = 60_000  # characters; a comment on GitHub holds 65,536
SHOWN = 20  # rows of a table, and divergences
NAMED = 10  # modules that run the same wrong line
WIDE, LONG = 200, 600  # characters of one cell, and of a note

MARK = {"aligned": "✅", "misaligned": "❌", "vacuous": "⚠️", "empty": "⚠️"}


def markdown(verdict: Mapping[str, Any], rows: Sequence[Row]) -> str:
    """The verdict in a sentence, the steps, where the sides part, the worst rows, and what was waived or not seen."""
    parts = [
        _headline(verdict),
        _table(("step", "verdict", "rows", "worst row", "meaning", "precision", "s"), map(_step, verdict["steps"])),
        _accuracy(verdict.get("accuracy")),
        _divergences(verdict["divergences"]),
        _rows("Worst rows", [row for row in _worst_first(rows) if row["verdict"] in ("misaligned", "missing")]),
        _rows("Waived", [row for row in rows if row["verdict"] == "waived"]),
        _list("The gate complains", verdict["complaints"]),
        _list("No row could have shown a wrong", verdict["blind"]),
        _table(
            ("coverage", "compared", "total", "waived", "insensitive"),
            ((kind, *counts.values()) for kind, counts in verdict["coverage"].items()),
        ),
    ]
    text = "\n\n".join(part for part in parts if part) + "\n"
    if len(text) > LONGEST:
        text = text[:LONGEST].rpartition("\n")[0] + "\n\n(cut; the whole is in rows.jsonl)\n"
    return text


def _headline(verdict: Mapping[str, Any]) -> str:
    blamed = f", first in step `{verdict['blamed_step']}`" if verdict["blamed_step"] else ""
    environment = ", ".join(
        f"{side} {at['versions'][side]} on {at['devices']['used']}"
        for side, at in verdict["environment"].items()
        if side in at.get("versions", {})
    )
    told = f"{MARK[verdict['verdict']]} {_plain(verdict['case'])}: {verdict['verdict']}{blamed}"
    notes = "".join(f"\n\n{_plain(note, LONG)}" for note in verdict.get("notes", ()))
    return f"## {told}\n\n{_plain(environment)}{notes}"


def _accuracy(found: Mapping[str, Any] | None) -> str:
    return _plain(found["text"]) + "." if found else ""


def _step(step: Mapping[str, Any]) -> tuple[Any, ...]:
    worst = step["worst"] or {}
    return (
        step["step"],
        f"{MARK[step['verdict']]} {step['verdict']}",
        step["rows"],
        _code(worst.get("name")),
        _ratio(worst.get("meaning")),
        _ratio(worst.get("precision")),
        f"{step['seconds']:.1f}",
    )


def _ratio(judgement: Mapping[str, Any] | None) -> str:
    if not judgement:
        return "-"
    if judgement["limit"] == 0:
        return "equal" if judgement["error"] == 0 else f"{_digits(judgement['error'])} off"
    return f"{_digits(judgement['ratio'])}x noise"


def _digits(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.3g}"


def _worst_first(rows: Iterable[Row]) -> list[Row]:
    def excess(row: Row) -> float:
        judged = [row[name]["ratio"] for name in ("meaning", "precision") if row[name]]
        return max((float(value) for value in judged), default=float("inf"))

    return sorted(rows, key=excess, reverse=True)


def _rows(title: str, rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    cells = ((r["step"], _code(r["name"]), _ratio(r["meaning"]), r["waived"] or r["reason"]) for r in rows[:SHOWN])
    more = f"\n\n... and {len(rows) - SHOWN} more" if len(rows) > SHOWN else ""
    return f"### {title} ({len(rows)})\n\n{_table(('step', 'row', 'meaning', 'why'), cells)}{more}"


def _divergences(divergences: Sequence[Mapping[str, Any]]) -> str:
    lines = []
    for number, group in enumerate(by_line(divergences)[:SHOWN], 1):
        found = group[0]
        module = f" {_code(found['module'])}" if found["module"] else ""
        lines.append(f"{number}. **{found['step']}**{module}: {_plain(found['what'])}")
        for side in ("port", "reference"):
            if place := found[side]:
                first = (place["code"] or "").partition("\n")[0]
                where = f"{Path(place['file']).name}:{place['line']}"
                lines.append(f"   - {side} {_code(where)} {_code(first)}")
        if found["cause"]:
            lines.append(f"   - cause: {_plain(found['cause']['text'])}")
        if others := likewise(group):
            more = f" and {len(others) - NAMED} more" if len(others) > NAMED else ""
            lines.append(f"   - likewise {', '.join(map(_code, others[:NAMED]))}{more}")
    return "### Where the sides part\n\n" + "\n".join(lines) if lines else ""


def _list(title: str, items: Sequence[str]) -> str:
    lines = "\n".join(f"- {_plain(item)}" for item in items[:SHOWN])
    return f"### {title} ({len(items)})\n\n{lines}" if items else ""


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    body = ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in rows]
    return "\n".join(["| " + " | ".join(head) + " |", "|---" * len(head) + "|", *body]) if body else ""


def _cell(value: Any) -> str:
    text = str(value).replace("\n", " ")
    text = text if text.startswith("`") else _plain(text)
    return text.replace("|", "\\|")


def _code(text: str | None) -> str:
    """As code: nothing in it is markup, and a backtick cannot end it."""
    if not text:
        return "-"
    return "`" + _short(text).replace("`", "'").replace("\n", " ") + "`"


def _plain(text: str, longest: int = WIDE) -> str:
    """Text that came from models and files: neither HTML nor a mention nor a link."""
    return _short(text, longest).replace("&", "&amp;").replace("<", "&lt;").replace("@", "@\N{ZERO WIDTH SPACE}")


def _short(text: str, longest: int = WIDE) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"
