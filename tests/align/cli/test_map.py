"""`--map FILE`: a user's names win, and names that nobody has are refused."""

import json

import pytest


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


BAD = [
    (
        '[modules]\n"pools.9" = "pools.0"\n',
        "[modules] names 'pools.9', which the reference does not have; near: pools.",
    ),
    ('[modules]\n"pools.0" = "pool.0"\n', "[modules] names 'pool.0', which the port does not have; near: pools.0"),
    ('[parameters]\n"head.bia" = "head.bias"\n', "[parameters] names 'head.bia', which the reference does not have"),
    ('[parameters]\n"head.bias" = "hat.bias"\n', "[parameters] names 'hat.bias', which the port does not have"),
    ('[parameters]\n"head.bias" = "norm.bias"\n', "would both be norm.bias of the port"),
    ('[modules]\n"a" = "c"\n"b" = "c"\n', "both 'a' and 'b' are 'c' of the port"),
    ("[modules]\na.b = 'c'\n", "quote the names, which hold dots"),
    ("[layers]\n", "expected the tables [modules] and [parameters], found 'layers'"),
    ("modules", "not TOML"),
]


@pytest.mark.parametrize(("text", "message"), BAD)
def test_a_file_that_cannot_be_meant(align, mapped, tmp_path, text, message):
    result = align("run", "forward", "--case", "pit_probe", "--map", mapped(text), "--out", tmp_path / "out")
    assert result.returncode == 2, result.stdout + result.stderr
    assert message in result.stderr
    assert not (tmp_path / "out/verdict.json").exists()


def test_a_file_that_is_not_there(align, tmp_path):
    result = align("diff", tmp_path, "--map", tmp_path / "none.toml")
    assert result.returncode == 2


def test_of_recordings(align, finished, mapped):
    out, _ = finished
    good = mapped('[modules]\n"norm" = "norm"\n')
    assert align("diff", out, "--map", good).returncode == 0
    result = align("diff", out, "--map", mapped('[modules]\n"norm" = "norms"\n'))
    assert result.returncode == 2
    assert "[modules] names 'norms', which the port does not have; near: norm" in result.stderr
