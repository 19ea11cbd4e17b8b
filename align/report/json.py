"""`verdict.json` and `rows.jsonl`, the machine's view of a run, and what is made from them for CI systems."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from align.compare.rows import Judgement, Row
from align.compare.verdict import StepVerdict, Verdict, coverage
from align.errors import UsageError
from align.record.manifest import write_json
from align.report import github, html, junit, summary

SCHEMA = "align/1"


def number(value: float | None) -> float | str | None:
    """JSON has no infinity and no NaN: they become the strings "inf" and "nan"."""
    return value if value is None or math.isfinite(value) else str(value)


def _judgement(judgement: Judgement | None) -> dict[str, Any] | None:
    if judgement is None:
        return None
    return {name: number(getattr(judgement, name)) for name in ("error", "limit", "ratio")}


def row(row: Row) -> dict[str, Any]:
    found = row.difference
    return {
        "step": row.step,
        "name": row.name,
        "kind": row.kind,
        "verdict": row.verdict,
        "reason": row.reason,
        "shape": list(row.shape),
        "dtype": row.dtype,
        "max_abs": number(found.max_abs) if found else None,
        "index": list(found.index) if found and found.index is not None else None,
        "mean_abs": number(found.mean_abs) if found else None,
        "rel": number(found.rel) if found else None,
        "cosine": number(found.cosine) if found else None,
        "ulp": found.max_ulp if found else None,
        "meaning": _judgement(row.meaning),
        "precision": _judgement(row.precision),
        "noise": number(row.noise.rms) if row.noise else None,
        "min_tolerance": number(found.min_absolute_tolerance) if found else None,
        "matched_by": row.matched_by,
        "waived": row.waived,
    }


def rows_of(result: Verdict) -> list[dict[str, Any]]:
    """The lines of `rows.jsonl`."""
    return [row(one) for one in result.rows]


def _step(step: StepVerdict) -> dict[str, Any]:
    worst = step.worst
    return {
        "step": step.step,
        "verdict": step.verdict,
        "rows": len(step.rows),
        "seconds": step.seconds,
        "worst": worst and {key: row(worst)[key] for key in ("name", "kind", "max_abs", "rel", "meaning", "precision")},
    }


def verdict(result: Verdict) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "case": result.case,
        "verdict": result.verdict,
        "blamed_step": result.blamed_step,
        "steps": [_step(step) for step in result.steps],
        "coverage": coverage(result.rows),
        "blind": list(result.blind),
        "complaints": list(result.complaints),
        "weights": result.weights and {"text": str(result.weights), **asdict(result.weights)},
        "accuracy": result.accuracy and {**asdict(result.accuracy), "text": str(result.accuracy)},
        "notes": list(result.notes),
        "first_divergence": result.divergences[0].as_json() if result.divergences else None,
        "divergences": [divergence.as_json() for divergence in result.divergences],
        "environment": result.environment,
    }


def write(result: Verdict, out: Path, details: Mapping[str, Any] | None = None) -> None:
    """Each file replaced in one move, `verdict.json` last; the other reports are made from the same two.

    `details` are what the recordings add to `report.html`, see `align.report.details`.
    """
    told, rows = verdict(result), rows_of(result)
    _replaced(out / "rows.jsonl", "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows).encode())
    write_reports(told, rows, out, details)
    write_json(out / "verdict.json", told)
    github.report(told, summary.markdown(told, rows))


def write_reports(
    told: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], out: Path, details: Mapping[str, Any] | None = None
) -> None:
    """`report.html`, `junit.xml` and `summary.md` from the JSON of a verdict and of its rows."""
    _replaced(out / "report.html", html.document(told, rows, details).encode())
    _replaced(out / "junit.xml", junit.document(told, rows))
    _replaced(out / "summary.md", summary.markdown(told, rows).encode())


def read(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """`verdict.json` and `rows.jsonl` of a folder; UsageError, naming the file, unless both are there and whole."""
    path = folder / "verdict.json"
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        path = folder / "rows.jsonl"
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; write it with `align run --out {folder}`") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: not JSON ({error}); run again") from None
    schema = told.get("schema") if isinstance(told, dict) else None
    if schema != SCHEMA:
        raise UsageError(f"{folder / 'verdict.json'}: written as {schema!r}, this version reads {SCHEMA!r}; run again")
    try:
        counted = sum(step["rows"] for step in told["steps"] if {"step", "seconds"} <= step.keys())
    except (KeyError, TypeError, AttributeError):
        counted = None
    if counted != len(rows):
        raise UsageError(f"{path}: holds {len(rows)} rows, verdict.json speaks of {counted}; run again")
    return told, rows


def _replaced(path: Path, content: bytes) -> None:
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_bytes(content)
    aside.replace(path)
