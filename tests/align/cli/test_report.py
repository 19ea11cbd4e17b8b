"""`align report` on the folder of a real run, and the schema of the real `verdict.json`."""

import json
import shutil

import pytest
from jsonschema import Draft202012Validator

from align.cli import main


@pytest.fixture(scope="module")
def schema(root):
    found = json.loads((root / "align/report/verdict.schema.json").read_text())
    Draft202012Validator.check_schema(found)
    return Draft202012Validator(found)


@pytest.fixture
def folder(finished, tmp_path):
    """A copy of a finished run, as a user would carry it elsewhere."""
    return shutil.copytree(finished[0], tmp_path / "run")


@pytest.fixture
def report(capsys):
    """Run the command in this process; the answer is the exit code, standard output and standard error."""

    def call(*arguments):
        code = main(["report", *map(str, arguments)])
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        return code, printed.out, printed.err

    return call


def test_the_reports_of_a_run_are_made_again_to_the_byte(folder, report):
    before = {name: (folder / name).read_bytes() for name in ("report.html", "junit.xml", "summary.md", "verdict.json")}
    assert b'"details":{"' in before["report.html"], "with what the recordings add"
    for name in ("report.html", "junit.xml", "summary.md"):
        (folder / name).unlink()
    code, out, _ = report(folder, "--json")
    assert code == 0
    written = json.loads(out)["reports"]
    assert written == [str(folder / name) for name in ("junit.xml", "report.html", "summary.md")]
    assert {name: (folder / name).read_bytes() for name in before} == before


def test_without_its_recordings(folder, report):
    shutil.rmtree(folder / "recordings")
    code, _, told = report(folder)
    assert code == 0
    assert "recordings are not there" in told
    page = (folder / "report.html").read_text()
    assert "Made without the recordings" in page and '"details":{}' in page


def test_recordings_that_are_not_the_verdicts_are_not_used(folder, report):
    verdict = json.loads((folder / "verdict.json").read_text())
    verdict["steps"][0]["seconds"] += 1.0
    (folder / "verdict.json").write_text(json.dumps(verdict))
    _, _, told = report(folder)
    assert "recordings are not there" in told


def spoil(folder, name, change):
    path = folder / name
    text = change(path.read_text())
    path.write_text(text)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("verdict.json", lambda text: text[:50], "not JSON"),
        ("verdict.json", lambda text: "[]", "this version reads 'align/1'"),
        ("verdict.json", lambda text: text.replace("align/1", "align/9"), "written as 'align/9'"),
        ("verdict.json", lambda text: text.replace('"divergences"', '"other"'), "was changed"),
        ("verdict.json", lambda text: text.replace('"seconds"', '"second"'), "verdict.json speaks of"),
        ("rows.jsonl", lambda text: text[:5000], "not JSON"),
        ("rows.jsonl", lambda text: text.split("\n", 1)[1], "verdict.json speaks of"),
    ],
)
def test_files_that_cannot_be_reported(folder, report, name, change, message):
    page = (folder / "report.html").read_bytes()
    spoil(folder, name, change)
    code, _, told = report(folder)
    assert code == 2
    assert message in told and str(folder) in told
    assert (folder / "report.html").read_bytes() == page, "what was there is left"


def test_a_folder_without_a_run(tmp_path, report):
    code, _, told = report(tmp_path / "nowhere")
    assert code == 2 and "verdict.json" in told and "align run" in told
    assert not (tmp_path / "nowhere").exists()


def test_a_real_verdict_keeps_to_the_schema(finished, schema):
    schema.validate(json.loads((finished[0] / "verdict.json").read_text()))


def test_a_red_verdict_keeps_to_the_schema(finished, schema, tmp_path, capsys):
    """reprod_log's rule at nothing: every row that rounds is red."""
    assert main(["diff", str(finished[0]), "--fixed", "0", "--out", str(tmp_path)]) == 1
    capsys.readouterr()
    verdict = json.loads((tmp_path / "verdict.json").read_text())
    schema.validate(verdict)
    assert verdict["verdict"] == "misaligned"


def test_a_vacuous_verdict_keeps_to_the_schema(finished, schema, tmp_path, capsys):
    """A tolerance that zeros would hold too: nothing is red, and nothing was seen."""
    assert main(["diff", str(finished[0]), "--fixed", "1e30", "--out", str(tmp_path)]) == 1
    capsys.readouterr()
    verdict = json.loads((tmp_path / "verdict.json").read_text())
    schema.validate(verdict)
    assert verdict["verdict"] == "vacuous" and verdict["blind"]


@pytest.mark.parametrize(
    "change",
    [
        lambda verdict: verdict.pop("blamed_step"),
        lambda verdict: verdict.update(verdict="fine"),
        lambda verdict: verdict["steps"][0].update(rows="many"),
        lambda verdict: verdict["steps"][0]["worst"].update(max_abs="huge"),
        lambda verdict: verdict["coverage"].update(other={}),
        lambda verdict: verdict.update(first_divergence={"step": "forward"}),
        lambda verdict: verdict.update(notes="one"),
    ],
)
def test_the_schema_can_fail(finished, schema, change):
    verdict = json.loads((finished[0] / "verdict.json").read_text())
    change(verdict)
    assert not schema.is_valid(verdict)
