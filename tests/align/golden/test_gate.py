"""The golden gate as a port's CI uses it: no process can import torch, and the port is right, or has a bug in it."""

import json
import shutil
import zipfile

import pytest
from jsonschema import Draft202012Validator

from align.golden import archive

ABSENT = ("torch", "torchvision", "timm")
CLEAN = "data weights forward metric loss bp_align"


@pytest.fixture(scope="module")
def port(root, tmp_path_factory):
    """A working directory with the port in it, in which nothing of the reference's side can be imported."""
    folder = tmp_path_factory.mktemp("port")
    shutil.copytree(root / "paddle_impl", folder / "paddle_impl")
    for name in ABSENT:
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(f"raise ModuleNotFoundError('not here', name={name!r})\n")
    return folder


@pytest.fixture
def gate(align, port, tmp_path):
    """Run the gate in the port's directory; the CompletedProcess and the folder of the reports."""

    def call(golden, *arguments, cwd=port):
        result = align("run", "--against", golden, "--out", tmp_path / "out", *arguments, cwd=cwd)
        assert "Traceback" not in result.stderr
        return result, tmp_path / "out"

    return call


@pytest.fixture
def changed(port, tmp_path):
    """The port's directory again with a text in one of its files replaced."""

    def change(file, find, replace):
        folder = shutil.copytree(port, tmp_path / "changed")
        text = (folder / file).read_text()
        assert text.count(find) == 1
        (folder / file).write_text(text.replace(find, replace))
        return folder

    return change


@pytest.fixture(scope="module")
def committed(root):
    return root / "golden" / "pit_probe.align"


@pytest.fixture(scope="module")
def schema(root):
    return Draft202012Validator(json.loads((root / "align/report/verdict.schema.json").read_text()))


def verdict(out, schema):
    told = json.loads((out / "verdict.json").read_text())
    schema.validate(told)
    return told


def test_torch_cannot_be_imported_there(align, port, tmp_path):
    result = align("run", "forward", "--case", "pit_probe", "--out", tmp_path, cwd=port)
    assert result.returncode == 3
    assert "'torch'" in result.stderr


def test_the_committed_recording_is_small(committed):
    assert committed.stat().st_size < 6_000_000


def test_the_clean_port_passes(align, gate, committed, schema):
    result, out = gate(committed, *CLEAN.split(), "--json")
    assert result.returncode == 0, result.stdout + result.stderr
    told = verdict(out, schema)
    assert json.loads(result.stdout) == told
    assert [step["step"] for step in told["steps"]] == CLEAN.split()
    assert "golden recording, pit_probe.align" in told["notes"][0]
    assert all(counts["compared"] == counts["total"] for counts in told["coverage"].values())
    assert {path.name for path in out.glob("*.npy")} == {
        f"{step}_{side}.npy" for step in CLEAN.split() for side in ("torch", "paddle")
    }
    assert "diff check passed" in (out / "forward_diff.log").read_text()
    assert "the golden recording has them thinned" in (out / "bp_align_diff.log").read_text()
    page = (out / "report.html").read_bytes()
    assert align("report", out).returncode == 0
    assert (out / "report.html").read_bytes() == page


def test_a_bug_is_caught_and_placed(gate, committed, schema, changed):
    folder = changed("paddle_impl/pit.py", "q = q * self.scale", "q = q * C**-0.5")
    result, out = gate(committed, "forward", "bp_align", cwd=folder)
    assert result.returncode == 1, result.stdout + result.stderr
    told = verdict(out, schema)
    assert (told["verdict"], told["blamed_step"]) == ("misaligned", "forward")
    found = told["first_divergence"]
    assert found["module"] == "transformers.0.blocks.0.attn"
    assert found["what"] == "what it hands to transformers.0.blocks.0.attn.attn_drop"
    assert found["port"]["file"] == str(folder / "paddle_impl/pit.py")
    assert found["port"]["built"]["code"].startswith("self.attn = Attention(")
    assert found["reference"] is None
    assert "need the reference itself" in told["notes"][1]
    assert f"paddle_impl/pit.py:{found['port']['built']['line']}" in (out / "report.html").read_text()


@pytest.mark.parametrize(
    ("file", "find", "replace", "step", "row"),
    [
        ("paddle_impl/pit.py", "epsilon=1e-6", "epsilon=1.01e-6", "forward", "norm1"),
        pytest.param(
            *("paddle_impl/data.py", 'interpolation="bicubic"', 'interpolation="bilinear"', "data", "resized"),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_small_bugs_are_caught(gate, committed, schema, changed, file, find, replace, step, row):
    result, out = gate(committed, step, cwd=changed(file, find, replace))
    assert result.returncode == 1, result.stdout + result.stderr
    told = verdict(out, schema)
    assert told["blamed_step"] == step
    found = told["first_divergence"]
    assert row in (found["module"] or found["what"])


def test_a_frozen_run_judges_as_the_run_does(finished, align, gate, schema, tmp_path):
    """Freezing costs no verdict: the same port against the same reference, whole and thinned."""
    folder, _ = finished
    target = tmp_path / "frozen" / "probe.align"
    steps = ("weights", "forward", "metric", "loss", "bp_align")
    result = align("freeze", *steps, "--from", folder, "--out", target, "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["steps"] == list(steps)
    assert [path.name for path in target.parent.iterdir()] == [target.name]
    result, out = gate(target)
    assert result.returncode == 0, result.stdout + result.stderr
    rows = {}
    for place in (folder, out):
        lines = map(json.loads, (place / "rows.jsonl").read_text().splitlines())
        rows[place] = {(row["step"], row["name"]): row for row in lines}
    theirs = {key: row for key, row in rows[folder].items() if key[0] in steps}
    assert rows[out].keys() == theirs.keys()
    told = ("verdict", "shape", "dtype")
    for key, row in rows[out].items():
        assert [row[name] for name in told] == [theirs[key][name] for name in told]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--case", "pit_ti"], 2, "holds case pit_probe, not pit_ti"),
        (["--weights", "w.pth"], 2, "leave it out"),
        (["--side", "torch"], 2, "leave --side out"),
        (["--seed", "3"], 4, "was frozen with seed 20210330, now has 3"),
        (["--dtype", "bfloat16"], 4, "frozen in float32, asked for is bfloat16"),
        (["no_such_step"], 2, "unknown step 'no_such_step'"),
    ],
)
def test_what_does_not_go_together_is_refused(gate, committed, arguments, code, words):
    result, out = gate(committed, *arguments)
    assert (result.returncode, words in result.stderr) == (code, True), result.stderr
    assert not (out / "verdict.json").exists()


def test_a_reference_that_has_changed_is_refused(gate, committed, root, port, tmp_path):
    folder = shutil.copytree(port, tmp_path / "with_reference")
    shutil.copytree(root / "torch_ref", folder / "torch_ref")
    file = folder / "torch_ref" / "pit.py"
    file.write_text(file.read_text() + "\n# changed\n")
    result, _ = gate(committed, cwd=folder)
    assert result.returncode == 4
    assert f"{file} of the reference has changed since" in result.stderr
    assert "align freeze --case pit_probe" in result.stderr


def test_a_case_that_has_changed_is_refused(gate, committed, tmp_path):
    """As if it had been frozen when the case had another recipe."""
    with zipfile.ZipFile(committed) as file:
        content = {name: file.read(name) for name in file.namelist()}
    plan = json.loads(content["plan/plan.json"])
    plan["case"]["clip_norm"] = 0.25
    content["plan/plan.json"] = json.dumps(plan).encode()
    with zipfile.ZipFile(tmp_path / "old.align", "w") as file:
        for name, data in content.items():
            file.writestr(name, data)
    result, _ = gate(tmp_path / "old.align")
    assert result.returncode == 4
    assert "was frozen with clip_norm 0.25, now has 0.5" in result.stderr


def test_a_damaged_file_is_refused(gate, committed, tmp_path):
    (tmp_path / "cut.align").write_bytes(committed.read_bytes()[:-1000])
    result, _ = gate(tmp_path / "cut.align")
    assert result.returncode == 2
    assert "cut.align: no golden recording, or damaged" in result.stderr


def test_the_committed_recording_holds_every_step(committed):
    golden = archive.read(committed)
    assert golden.steps == golden.case.steps


@pytest.mark.slow
def test_every_step_passes(gate, committed, schema):
    result, out = gate(committed)
    assert result.returncode == 0, result.stdout + result.stderr
    told = verdict(out, schema)
    assert [step["verdict"] for step in told["steps"]] == ["aligned"] * 9
    assert '"training":[{' in (out / "report.html").read_text()


@pytest.mark.slow
def test_a_bug_is_seen_in_training_too(gate, committed, schema, changed):
    folder = changed("paddle_impl/pit.py", "epsilon=1e-6", "epsilon=1e-5")
    result, out = gate(committed, "train_align", cwd=folder)
    assert result.returncode == 1, result.stdout + result.stderr
    assert verdict(out, schema)["blamed_step"] == "train_align"
