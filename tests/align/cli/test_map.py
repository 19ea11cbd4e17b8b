"""`--map FILE`: a user's names win, and names that nobody has are refused."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from align import mapping
from align.cases import find
from align.errors import UsageError
from align.record.context import Context


@pytest.fixture
def mapped(tmp_path):
    """Write a mapping file."""

    def write(text):
        path = tmp_path / "names.toml"
        path.write_text(text)
        return path

    return write


def rows(out):
    return [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]


def test_what_the_file_names_is_matched_by_it(align, mapped, tmp_path):
    names = mapped('[modules]\n"pools.0" = "pools.0"\n[parameters]\n"head.bias" = "head.bias"\n')
    result = align("run", "weights", "forward", "--case", "pit_probe", "--map", names, "--out", tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    told = {row["name"]: row["matched_by"] for row in rows(tmp_path)}
    chosen = {name for name, how in told.items() if how == "override"}
    inside = {name for name in told if name.startswith(("activation/pools.0/", "activation/pools.0."))}
    assert inside
    assert chosen == {"head.bias"} | inside
    assert {how for name, how in told.items() if name not in chosen} == {"name"}


def test_a_wrong_file_is_believed_too(align, mapped, tmp_path):
    """Two layers exchanged: the weights go where the file says, and the outputs tell it."""
    names = mapped('[parameters]\n"head.weight" = "head_dist.weight"\n"head_dist.weight" = "head.weight"\n')
    result = align("run", "forward", "--case", "pit_probe", "--map", names, "--out", tmp_path, "--json")
    assert result.returncode == 1
    verdict = json.loads(result.stdout)
    assert {d["module"] for d in verdict["divergences"]} == {"head", "head_dist"}


# One that each side's process refuses; the other ways are tried without processes below.
REFUSED = [
    (
        '[modules]\n"pools.9" = "pools.0"\n',
        "[modules] names 'pools.9', which the reference does not have; near: pools.",
    ),
    ('[parameters]\n"head.bias" = "hat.bias"\n', "[parameters] names 'hat.bias', which the port does not have"),
]


@pytest.mark.parametrize(("text", "message"), REFUSED)
def test_a_run_by_a_file_that_cannot_be_meant(align, mapped, tmp_path, text, message):
    result = align("run", "forward", "--case", "pit_probe", "--map", mapped(text), "--out", tmp_path / "out")
    assert result.returncode == 2, result.stdout + result.stderr
    assert message in result.stderr
    assert not (tmp_path / "out/verdict.json").exists()


def test_a_module_that_the_port_does_not_have(mapped):
    tables = mapping.read(mapped('[modules]\n"pools.0" = "pool.0"\n'))
    with pytest.raises(UsageError) as caught:
        mapping.check(tables, "modules", "paddle", ["pools.0", "head"])
    assert str(caught.value) == "--map: [modules] names 'pool.0', which the port does not have; near: pools.0"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '"head.bia" = "head.bias"',
            "[parameters] names 'head.bia', which the reference does not have; near: head.bias",
        ),
        ('"head.bias" = "norm.bias"', "head.bias and norm.bias of the reference would both be norm.bias of the port"),
    ],
)
def test_parameters_that_cannot_be_meant(mapped, text, message):
    """By what a port knows of the plan's weights, which are the reference's."""
    case = replace(find("pit_probe"), mapping=mapping.read(mapped(f"[parameters]\n{text}\n")))
    weights = {f"weights/{name}": SimpleNamespace(shape=(4,)) for name in ("head.bias", "norm.bias")}
    plan = SimpleNamespace(tensors=SimpleNamespace(entries=weights))
    with pytest.raises(UsageError) as caught:
        Context(SimpleNamespace(name="paddle"), case, plan, "float32", None, None, None).naming  # noqa: B018
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[modules]\n"a" = "c"\n"b" = "c"\n', "both 'a' and 'b' are 'c' of the port"),
        ("[modules]\na.b = 'c'\n", "quote the names, which hold dots"),
        ("[layers]\n", "expected the tables [modules] and [parameters], found 'layers'"),
        ("modules", "not TOML"),
    ],
)
def test_a_file_that_says_something_else(mapped, text, message):
    path = mapped(text)
    with pytest.raises(UsageError) as caught:
        mapping.read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)


def test_a_file_that_is_not_there(align, finished, tmp_path):
    result = align("diff", finished[0], "--map", tmp_path / "none.toml")
    assert result.returncode == 2
    assert f"{tmp_path}/none.toml: cannot read the mapping: No such file" in result.stderr


def test_of_recordings(align, finished, mapped):
    out, _ = finished
    good = mapped('[modules]\n"norm" = "norm"\n')
    assert align("diff", out, "--map", good).returncode == 0
    result = align("diff", out, "--map", mapped('[modules]\n"norm" = "norms"\n'))
    assert result.returncode == 2
    assert "[modules] names 'norms', which the port does not have; near: norm" in result.stderr
