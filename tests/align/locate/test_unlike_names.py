"""Two authors, one network: no name in common, another tree, a fused projection; no mapping, and the line is found."""

import json
import subprocess
import sys

import pytest

QUICK = ("scale", "relu", "momentum", "detach")
BUGS = (*QUICK, "axis", "epsilon", "gelu", "residual", "position", "token")


def checked(root, folder, bugs):
    """The outcomes of `align zoo` by bug; "" is the right port."""
    models = root / "tests" / "models"
    tables = [
        f"[[case]]\nname = 'net_{bug or 'right'}'\nreference = '{models}/unlike_reference.py:Net'\n"
        f"""port = '{models}/unlike_port.py:Net("{bug}")'\ninputs = ['3,3,20,24']\n"""
        for bug in ("", *bugs)
    ]
    (folder / "cases.toml").write_text("\n".join(tables))
    command = [
        sys.executable,
        "-m",
        "align",
        "zoo",
        "--pairs",
        folder / "cases.toml",
        "--json",
        "--out",
        folder / "out",
    ]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert result.stdout, result.stderr
    outcomes = {outcome["name"].removeprefix("net_"): outcome for outcome in json.loads(result.stdout)}
    return outcomes, (models / "unlike_port.py").read_text().splitlines()


def assert_found(outcomes, lines, bugs):
    right = outcomes["right"]
    assert (right["verdict"], right["error"]) == ("aligned", None)
    assert right["matched_by"] == {"value": sum(right["matched_by"].values())}
    for bug in bugs:
        found = outcomes[bug]["divergence"]
        marked = next(number for number, line in enumerate(lines, 1) if line.endswith(f"# bug: {bug}"))
        port = found["port"]
        places = [(port["line"], port["end_line"])]
        places += [(port["built"]["line"], port["built"]["end_line"])] if port["built"] else []
        assert outcomes[bug]["verdict"] == "misaligned"
        assert any(first <= marked <= last for first, last in places), (bug, marked, found)


def test_the_line_is_found(root, tmp_path):
    outcomes, lines = checked(root, tmp_path, QUICK)
    assert_found(outcomes, lines, QUICK)
    assert "keeps 0.1 of the old value, the reference 0.9" in outcomes["momentum"]["divergence"]["what"]


@pytest.mark.slow
def test_every_line_is_found(root, tmp_path):
    outcomes, lines = checked(root, tmp_path, BUGS)
    assert_found(outcomes, lines, BUGS)
