"""What CI systems and pull requests are shown, from the JSON of a real run."""

import copy
import io
from xml.etree import ElementTree

import pytest

from align.report import github, junit, summary

ROW = {
    "step": "forward",
    "name": "logits",
    "kind": "output",
    "verdict": "aligned",
    "reason": "",
    "shape": [4, 10],
    "dtype": "float32",
    "max_abs": 1e-6,
    "index": [0, 1],
    "mean_abs": 1e-7,
    "rel": 1e-7,
    "cosine": 1.0,
    "ulp": 3,
    "meaning": {"error": 1e-15, "limit": 1e-13, "ratio": 0.9},
    "precision": {"error": 1e-6, "limit": 1e-4, "ratio": 1.1},
    "noise": 1e-6,
    "min_tolerance": 1e-6,
    "matched_by": "name",
    "waived": None,
}
DIVERGENCE = {
    "step": "forward",
    "module": "blocks.0.<script>",
    "what": "its output",
    "error": 0.5,
    "port": {"file": "/there/port/model.py", "line": 7, "end_line": 8, "code": "return `x`", "built": None},
    "reference": None,
    "cause": None,
}
VERDICT = {
    "schema": "align/1",
    "case": "a_case",
    "verdict": "misaligned",
    "blamed_step": "forward",
    "steps": [{"step": "forward", "verdict": "misaligned", "rows": 3, "seconds": 1.25, "worst": None}],
    "coverage": {"output": {"compared": 3, "total": 3, "waived": 1, "insensitive": 0}},
    "blind": [],
    "complaints": ["waivers.toml waiver 1: a_case forward 'x' expired"],
    "first_divergence": DIVERGENCE,
    "divergences": [DIVERGENCE],
    "environment": {"torch": {"versions": {"torch": "2.15.0"}, "devices": {"used": "cpu"}}},
}


@pytest.fixture
def rows():
    wrong = ROW | {"name": "features\x00 <&>", "verdict": "misaligned", "reason": "off | by | one"}
    worse = wrong | {"name": "worse", "meaning": {"error": 1.0, "limit": 1e-13, "ratio": 1e12}}
    return [
        copy.deepcopy(ROW),
        wrong,
        worse,
        ROW | {"name": "waived", "verdict": "waived", "waived": "known since May"},
    ]


def test_junit_has_a_case_a_row_and_says_what_fails(rows):
    root = ElementTree.fromstring(junit.document(VERDICT, rows))
    assert (root.get("tests"), root.get("failures"), root.get("skipped")) == ("5", "3", "1")
    cases = {case.get("name"): case for case in root.iter("testcase")}
    assert list(cases)[:2] == ["logits", "features\N{REPLACEMENT CHARACTER} <&>"]
    assert not list(cases["logits"])
    assert cases["worse"].find("failure").get("message") == "misaligned: off | by | one"
    assert "1000000000000.0 times the noise" in cases["worse"].find("failure").text
    assert cases["waived"].find("skipped").get("message") == "known since May"
    assert cases[VERDICT["complaints"][0]].get("classname") == "a_case.gate"


def test_the_summary_shows_the_worst_first_and_is_no_markup(rows):
    text = summary.markdown(VERDICT, rows)
    assert text.startswith("## ❌ a_case: misaligned, first in step `forward`")
    worst = text.index("`worse`")
    assert worst < text.index("`features")
    assert r"off \| by \| one" in text
    assert "`blocks.0.<script>`" in text and "model.py:7" in text and "return 'x'" in text
    assert "known since May" in text and "expired" in text
    assert "<script" not in text.replace("`blocks.0.<script>`", "")


def test_the_summary_is_bounded(rows):
    many = [row | {"name": f"row {i} " + "x" * 500} for i in range(3000) for row in rows[1:2]]
    text = summary.markdown({**VERDICT, "divergences": [DIVERGENCE] * 5000, "complaints": ["y" * 900] * 500}, many)
    assert len(text) < 65_536
    assert "and 2980 more" in text


def test_annotations_stand_on_the_ports_lines(tmp_path):
    place = DIVERGENCE["port"] | {"file": str(tmp_path / "port" / "a,b.py")}
    found = DIVERGENCE | {"port": place, "what": "50 % off\nhere"}
    (line,) = github.annotations({**VERDICT, "divergences": [found]}, tmp_path)
    assert line == "::error file=port/a%2Cb.py,line=7,endLine=8,title=forward blocks.0.<script>::50 %25 off%0Ahere"


def test_a_red_run_without_a_line_is_annotated_too(tmp_path):
    assert list(github.annotations({**VERDICT, "divergences": []}, tmp_path)) == [
        "::error title=align::a_case: misaligned, first in step forward"
    ]
    assert list(github.annotations({**VERDICT, "verdict": "aligned", "divergences": []}, tmp_path)) == []


def test_nothing_is_said_outside_of_github(tmp_path, monkeypatch):
    page, out = tmp_path / "page.md", io.StringIO()
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(page))
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    github.report(VERDICT, "text", out)
    assert (out.getvalue(), page.exists()) == ("", False)
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    github.report(VERDICT, "text", out)
    assert out.getvalue().startswith("::error file=") and page.read_text() == "text"


def test_a_line_that_many_modules_run_is_told_once(rows, tmp_path):
    found = [DIVERGENCE | {"module": f"blocks.{i}"} for i in range(30)]
    elsewhere = DIVERGENCE | {"module": "head", "port": DIVERGENCE["port"] | {"line": 70}}
    verdict = VERDICT | {"divergences": [*found, elsewhere]}
    text = summary.markdown(verdict, rows)
    assert "1. **forward** `blocks.0`" in text and "2. **forward** `head`" in text and "\n3. " not in text
    assert "likewise `blocks.1`, `blocks.2`," in text and "`blocks.10` and 19 more" in text
    first, second = github.annotations(verdict, tmp_path)
    assert first.endswith("::its output; likewise in 29 other modules") and second.endswith("::its output")


def test_notes_stand_below_the_headline(rows):
    text = summary.markdown(VERDICT | {"notes": ["the reference is <b>golden</b>"]}, rows)
    assert text.index("golden") < text.index("| step |")
    assert "&lt;b>golden" in text
