"""`junit.xml`: one test case a row, for the test reports of CI systems."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

# What XML 1.0 cannot hold, escaped or not.
FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

Row = Mapping[str, Any]


def document(verdict: Mapping[str, Any], rows: Sequence[Row]) -> bytes:
    """One suite a step; red rows fail, waived and insensitive ones are skipped, each with its reason.

    What makes a run fail without a red row (a stale waiver, a subject that no row could see) fails in a suite `gate`.
    """
    root = ElementTree.Element("testsuites", name=f"align {verdict['case']}")
    for step in verdict["steps"]:
        here = [row for row in rows if row["step"] == step["step"]]
        suite = _suite(root, step["step"], step["seconds"])
        for row in here:
            _case(suite, f"{verdict['case']}.{step['step']}", row)
        _count(suite)
    gate = [("complaint", text) for text in verdict["complaints"]] + [("blind", text) for text in verdict["blind"]]
    if gate:
        suite = _suite(root, "gate", 0.0)
        for kind, text in gate:
            case = ElementTree.SubElement(suite, "testcase", classname=f"{verdict['case']}.gate", name=_legal(text))
            ElementTree.SubElement(case, "failure", message=kind)
        _count(suite)
    for name in ("tests", "failures", "skipped"):
        root.set(name, str(sum(int(suite.get(name, 0)) for suite in root)))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n"


def _suite(root: ElementTree.Element, name: str, seconds: float) -> ElementTree.Element:
    return ElementTree.SubElement(root, "testsuite", name=name, time=f"{seconds:.3f}")


def _count(suite: ElementTree.Element) -> None:
    suite.set("tests", str(len(suite)))
    suite.set("errors", "0")
    for tag, name in (("failure", "failures"), ("skipped", "skipped")):
        suite.set(name, str(sum(case.find(tag) is not None for case in suite)))


def _case(suite: ElementTree.Element, classname: str, row: Row) -> None:
    case = ElementTree.SubElement(suite, "testcase", classname=_legal(classname), name=_legal(row["name"]))
    if row["verdict"] in ("misaligned", "missing"):
        failure = ElementTree.SubElement(case, "failure", message=_legal(f"{row['verdict']}: {row['reason']}"))
        failure.text = _legal("\n".join(_facts(row)))
    elif row["verdict"] in ("waived", "insensitive"):
        ElementTree.SubElement(case, "skipped", message=_legal(row["waived"] or row["reason"] or row["verdict"]))


def _facts(row: Row) -> Iterable[str]:
    for name in ("kind", "shape", "dtype", "max_abs", "index", "mean_abs", "rel", "cosine", "ulp", "min_tolerance"):
        yield f"{name}: {row[name]}"
    for name in ("meaning", "precision"):
        if found := row[name]:
            yield f"{name}: error {found['error']}, limit {found['limit']}, {found['ratio']} times the noise"


def _legal(text: str) -> str:
    return FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)
