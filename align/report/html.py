"""`report.html`: one file that a person opens from disk, without network: what was found, where, and how bad it is.

What a reader needs first is in the page itself; the rows are JSON beside it, shown a page at a time by the script.
Names come from models and files: the template escapes them, and the script sets them as text only. A content security
policy names the page's own scripts by their hashes and forbids every request.
"""

import base64
import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from align.report.details import excess
from align.report.lines import by_line, likewise
from align.report.source import listing, short

Row = Mapping[str, Any]

LARGEST = 4_500_000  # bytes of JSON, so that the page with its scripts stays below 5 MB
REASON = 600  # characters of a reason; SHORT_REASON once the worst ROOM rows have had theirs
SHORT_REASON = 120
ROOM = 2000
DIVERGENCES = 20  # shown with their source lines
SCRIPTS = ("rows.js", "modules.js", "maps.js", "curves.js", "report.js")

# Columns of a row in the page: an index into the page's strings, or a number.
TEXTS = ("step", "name", "kind", "verdict", "reason", "dtype", "matched_by", "waived")
NUMBERS = ("max_abs", "mean_abs", "rel", "cosine", "ulp", "noise", "min_tolerance")
JUDGEMENTS = ("meaning", "precision")


def document(verdict: Mapping[str, Any], rows: Sequence[Row], details: Mapping[str, Any] | None = None) -> str:
    """The page of a `verdict.json`, its `rows.jsonl` and what the recordings add (`align.report.details.details`).

    At most 5 MB for 10,000 rows: what does not fit is left out from the least bad row on, and the page says so.
    """
    data = _data(rows, verdict, details or {})
    groups = by_line(verdict["divergences"])
    scripts = [Markup(text) for text in (_static("uPlot.iife.min.js"), "\n".join(map(_static, SCRIPTS)))]
    return _template().render(
        verdict=verdict,
        headline=headline(verdict, rows),
        environments=_environments(verdict["environment"]),
        divergences=[_divergence(group) for group in groups[:DIVERGENCES]],
        divergences_left=max(0, len(groups) - DIVERGENCES),
        red=sum(row["verdict"] in ("misaligned", "missing") for row in rows),
        total=len(rows),
        training=bool(details and details["training"]),
        pictures=bool(details and details["pictures"]),
        details=details is not None,
        data=Markup(_in_script(data)),
        styles=[Markup(_static("uPlot.min.css")), Markup(_static("report.css"))],
        scripts=scripts,
        policy=f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {_hashes(scripts)}",
    )


def headline(verdict: Mapping[str, Any], rows: Sequence[Row]) -> str:
    """The verdict in one sentence."""
    steps, found = len(verdict["steps"]), verdict["first_divergence"]
    counted = f"{len(rows):,} tensors of {steps} step{'s' * (steps != 1)}"
    if verdict["verdict"] == "aligned":
        return f"The port computes what the reference computes: {counted} agree."
    if verdict["verdict"] == "empty":
        return "Nothing was compared, so nothing is known about the port."
    if verdict["verdict"] == "vacuous":
        return f"What was compared agrees, but not everything could have been seen to differ: {_blind(verdict)}."
    if found:
        place = found["port"]
        where = f" at {short(place['file'])}:{place['line']}" if place else ""
        module = f", module {found['module']}," if found["module"] else ""
        why = f": {found['cause']['text']}" if found["cause"] else f" ({found['what']})"
        return f"The port first differs in step {found['step']}{module}{where}{why}."
    if verdict["blamed_step"]:
        red = sum(row["verdict"] in ("misaligned", "missing") for row in rows)
        return f"The port first differs in step {verdict['blamed_step']}; {red:,} of {counted} are red."
    return f"The gate fails: {'; '.join(verdict['complaints']) or _blind(verdict)}."


def _blind(verdict: Mapping[str, Any]) -> str:
    blind = verdict["blind"]
    more = f" and {len(blind) - 3} more" if len(blind) > 3 else ""
    return f"no row could have shown a wrong {', '.join(blind[:3])}{more}" if blind else "a step has no sensitive row"


def _data(rows: Sequence[Row], verdict: Mapping[str, Any], details: Mapping[str, Any]) -> str:
    """The rows as JSON, and of the details as many as fit, the worst rows' first."""
    strings: dict[str | None, int] = {}
    worst = sorted(range(len(rows)), key=lambda index: -excess(rows[index]))
    roomy = set(worst[:ROOM])
    packed = [list(_packed(row, strings, REASON if index in roomy else SHORT_REASON)) for index, row in enumerate(rows)]
    head: dict[str, Any] = {
        "texts": TEXTS,
        "numbers": NUMBERS,
        "judgements": JUDGEMENTS,
        "strings": list(strings),
        "rows": packed,
    }
    head["blamed"] = verdict["blamed_step"]
    head["first"] = {found["step"]: found["module"] for found in reversed(verdict["divergences"])}
    own = {found["module"] for found in verdict["divergences"] if found["port"]}  # a place in its code is known
    head["divergent"] = sorted(module for module in own if module)
    told: dict[str, Any] = {**head, "training": [], "pictures": [], "details": {}}
    size = len(_json(told))
    for name in ("training", "pictures"):
        for item in details.get(name, ()):
            if (size := size + len(_json(item)) + 2) <= LARGEST:
                told[name].append(item)
    maps = details.get("rows", {})
    for index in worst:
        if index in maps and (size := size + len(_json(maps[index])) + 16) <= LARGEST:
            told["details"][index] = maps[index]
    told["left_out"] = len(maps) - len(told["details"])
    return _json(told)


def _packed(row: Row, strings: dict[str | None, int], longest: int) -> Iterator[Any]:
    for name in TEXTS:
        text = row[name]
        if name == "reason" and len(text) > longest:
            text = f"{text[:longest]}… (whole in rows.jsonl)"
        yield strings.setdefault(text, len(strings))
    for shape in (row["shape"], row["index"]):
        yield strings.setdefault(None if shape is None else str(tuple(shape)), len(strings))
    for name in NUMBERS:
        yield _number(row[name], 9 if name == "cosine" else 4)
    for name in JUDGEMENTS:
        found = row[name]
        yield [_number(found[key], 4) for key in ("error", "limit", "ratio")] if found else None


def _number(value: Any, digits: int) -> Any:
    """Fewer digits; "inf" and "nan" stay the strings they are."""
    if value is None or isinstance(value, str):
        return value
    short = float(f"{value:.{digits}g}")
    short = short if math.isfinite(short) else value  # the greatest number, rounded up
    return int(short) if short.is_integer() and abs(short) < 1e15 else short


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _in_script(text: str) -> str:
    """JSON that cannot end the script element, nor begin a comment in it."""
    return text.replace("<", "\\u003c")


def _environments(environment: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Of each side what it ran in, the switches apart; a port's own form is shown as far as it is known."""
    return [
        {
            "side": side,
            "python": at.get("python"),
            "platform": at.get("platform"),
            "device": at.get("devices", {}).get("used"),
            "gpus": at.get("devices", {}).get("gpus", []),
            "versions": {name: version for name, version in at.get("versions", {}).items() if version != "False"},
            "switches": at.get("switches", []),
        }
        for side, at in environment.items()
    ]


def _divergence(group: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    found, sides = group[0], []
    for side in ("reference", "port"):
        if place := found[side]:
            built, here = place["built"], (place["file"], place["line"])
            shown = built and built.get("code") is not None and (built["file"], built["line"]) != here
            sides.append({"side": side, **listing(place), "built": listing(built) if shown else None})
    return {**found, "sides": sides, "likewise": likewise(group)}


def _hashes(scripts: Sequence[str]) -> str:
    digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts)
    return " ".join(f"'sha256-{digest}'" for digest in digests)


@cache
def _static(name: str) -> str:
    return (files("align.report") / "static" / name).read_text(encoding="utf-8")


@cache
def _template() -> Any:
    environment = Environment(
        loader=PackageLoader("align.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = lambda value: value if isinstance(value, str) else f"{value:.3g}"
    return environment.get_template("report.html")
