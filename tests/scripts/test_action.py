"""The GitHub Action: its YAML by the tools made for it, and the script it runs as a runner would run it."""

import json
import os
import re
import shlex
import stat
import subprocess
import sys

import pytest
import yaml

STUB = """#!{python}
import json, os, pathlib, sys

if sys.argv[1] == "-m":
    pathlib.Path(os.environ["SEEN"]).write_text(json.dumps(sys.argv[2:]))
    out = pathlib.Path(sys.argv[sys.argv.index("--out") + 1])
    out.mkdir(exist_ok=True)
    told = json.loads(os.environ["VERDICT"])
    if told:
        (out / "verdict.json").write_text(json.dumps(told))
    sys.exit(int(os.environ["CODE"]))
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""

ALIGNED = {"verdict": "aligned", "blamed_step": None}
RED = {"verdict": "misaligned", "blamed_step": "forward"}
VACUOUS = {"verdict": "vacuous", "blamed_step": None}


@pytest.mark.parametrize(
    ("schema", "file"),
    [
        ("vendor.github-actions", "action.yml"),
        ("vendor.github-workflows", ".github/workflows/ci.yml"),
    ],
)
def test_the_yaml_is_what_github_takes(root, schema, file):
    pytest.importorskip("check_jsonschema", reason="no check-jsonschema; scripts/setup.sh installs it")
    result = check(schema, root / file)
    assert result.returncode == 0, result.stdout


def test_the_workflows_of_the_documents_are_too(root, tmp_path):
    pytest.importorskip("check_jsonschema", reason="no check-jsonschema; scripts/setup.sh installs it")
    examples = re.findall(r"^```yaml\n(.*?)^```", (root / "docs/ci.md").read_text(), re.MULTILINE | re.DOTALL)
    workflows = [text for text in examples if "jobs:" in text]
    assert workflows
    inputs = yaml.safe_load((root / "action.yml").read_text())["inputs"]
    for number, text in enumerate(workflows):
        (tmp_path / f"{number}.yml").write_text(text)
        result = check("vendor.github-workflows", tmp_path / f"{number}.yml")
        assert result.returncode == 0, result.stdout
        for job in yaml.safe_load(text)["jobs"].values():
            ours = [step for step in job["steps"] if "align" in step.get("uses", "")]
            assert ours
            assert all(step["with"].keys() <= inputs.keys() for step in ours)


def test_what_is_wrong_is_noticed(root, tmp_path):
    pytest.importorskip("check_jsonschema", reason="no check-jsonschema; scripts/setup.sh installs it")
    told = yaml.safe_load((root / "action.yml").read_text())
    told["runs"]["steps"][0].pop("shell")
    (tmp_path / "action.yml").write_text(yaml.safe_dump(told))
    assert check("vendor.github-actions", tmp_path / "action.yml").returncode == 1


def check(schema, file):
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, str(file)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture
def act(root, tmp_path):
    """Run the action's script with a stand-in for `python -m align`: only the script is under test here."""
    stub = tmp_path / "python"
    stub.write_text(STUB.format(python=sys.executable))
    stub.chmod(stub.stat().st_mode | stat.S_IEXEC)

    def run(verdict=ALIGNED, code=0, **inputs):
        (tmp_path / "output").write_text("")
        result = subprocess.run(
            ["bash", str(root / "scripts/action.sh")],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env={
                **os.environ,
                "PYTHONPATH": str(root),
                "ALIGN_PYTHON": str(stub),
                "GITHUB_OUTPUT": str(tmp_path / "output"),
                "SEEN": str(tmp_path / "seen.json"),
                "VERDICT": json.dumps(verdict),
                "CODE": str(code),
                **{f"ALIGN_{name.upper()}": value for name, value in inputs.items()},
            },
        )
        lines = (tmp_path / "output").read_text().splitlines()
        seen = tmp_path / "seen.json"
        arguments = json.loads(seen.read_text()) if seen.exists() else None
        return result, dict(line.split("=", 1) for line in lines), arguments

    return run


def test_the_inputs_become_arguments(act):
    result, outputs, seen = act(case="pit_probe", args="forward --waivers 'my waivers.toml'", out="there")
    assert result.returncode == 0, result.stderr
    assert seen == [
        "align", "run", "--case", "pit_probe", "forward", "--waivers", "my waivers.toml", "--out", "there",
    ]  # fmt: skip
    assert outputs == {"verdict": "aligned", "blamed-step": "", "report": "there/report.html"}


def test_a_check_and_a_golden_recording(act):
    assert act(check="a:b c:d --input 2,3")[2] == [
        "align",
        "check",
        "a:b",
        "c:d",
        "--input",
        "2,3",
        "--out",
        "align-report",
    ]
    assert act(against="g.align")[2] == ["align", "run", "--against", "g.align", "--out", "align-report"]


def test_nothing_in_an_input_is_run_by_the_shell(act, tmp_path):
    evil = "$(touch {0}/ran) `touch {0}/ran` ; touch {0}/ran".format(shlex.quote(str(tmp_path)))
    _, _, seen = act(case=evil, args=evil)
    assert seen[3] == evil
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("verdict", "code", "fail_on", "expected"),
    [
        (ALIGNED, 0, "any", 0),
        (RED, 1, "any", 1),
        (RED, 1, "misaligned", 1),
        (RED, 1, "never", 0),
        (VACUOUS, 1, "any", 1),
        (VACUOUS, 1, "misaligned", 0),
        (VACUOUS, 1, "never", 0),
        (None, 4, "never", 4),
        (None, 2, "misaligned", 2),
    ],
)
def test_when_the_action_fails(act, verdict, code, fail_on, expected):
    result, outputs, _ = act(verdict, code, fail_on=fail_on)
    assert result.returncode == expected
    assert outputs["verdict"] == (verdict or {"verdict": ""})["verdict"]
    assert outputs["blamed-step"] == ("forward" if verdict is RED else "")


def test_the_verdict_of_an_earlier_run_is_not_taken_for_this_one(act):
    act(RED, 1)
    _, outputs, _ = act(None, 3)
    assert outputs == {"verdict": "", "blamed-step": "", "report": ""}


@pytest.mark.parametrize(
    ("inputs", "told"),
    [
        ({"fail_on": "sometimes"}, "fail-on: sometimes"),
        ({"args": "'open"}, "these are no arguments: 'open"),
        ({"case": "a", "check": "b c"}, "not both"),
    ],
)
def test_inputs_that_make_no_sense(act, inputs, told):
    result, outputs, seen = act(**inputs)
    assert (result.returncode, outputs, seen) == (2, {}, None)
    assert result.stdout.startswith("::error title=align::")
    assert told in result.stdout


def test_an_interpreter_without_align(act):
    result, _, seen = act(python="/bin/false")
    assert (result.returncode, seen) == (3, None)
    assert "/bin/false cannot import align" in result.stdout


def test_every_input_reaches_the_script(root):
    told = yaml.safe_load((root / "action.yml").read_text())
    text = (root / "action.yml").read_text()
    assert all(f"inputs.{name}" in text for name in told["inputs"])
    (gate,) = (step for step in told["runs"]["steps"] if step.get("id") == "gate")
    script = (root / "scripts/action.sh").read_text()
    assert all(variable in script for variable in gate["env"])
    assert re.findall(r"steps\.gate\.outputs\.([\w-]+)", text) and all(f"{name}=" in script for name in told["outputs"])
