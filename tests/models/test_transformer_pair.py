"""Transformers of both frameworks' own layers: unlike names, fused projections, masks, a cache; and no mapping."""

import json
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
PAIRS = {
    "encoder": ("Encoder", ["ids=3,9:int64<50", "mask=3,9:bool"]),
    "decoder": ("Decoder", ["2,5:int64<30", "2,4,16"]),
}


@pytest.fixture(scope="module")
def align(run_python):
    code = "import sys; from align.cli import main; sys.exit(main(sys.argv[1:]))"
    return lambda *arguments: run_python(code, *arguments, check=False)


def check(align, name, out, port=None):
    built, specs = PAIRS[name]
    paths = [FOLDER / f"{name}_torch.py", port or FOLDER / f"{name}_paddle.py"]
    given = [argument for spec in specs for argument in ("--input", spec)]
    return align("check", *(f"{path}:{built}" for path in paths), *given, "--out", out, "--json")


def rows(out):
    return [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", PAIRS)
def test_a_pair_is_aligned_without_a_mapping_file(align, name, tmp_path):
    result = check(align, name, tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    found = {row["name"]: row for row in rows(tmp_path)}
    fused = [row for row in found.values() if row["name"].endswith("grad/encoder.layers.1.self_attn.in_proj_weight")]
    assert all(row["matched_by"] == "value" and row["verdict"] == "aligned" for row in fused)
    assert len(fused) == (2 if name == "encoder" else 0)
    assert any(row["kind"] == "gradient" and row["verdict"] == "aligned" for row in found.values())


BUGS = [
    ("encoder", "mask.unsqueeze([1, 2])", "mask.logical_not().unsqueeze([1, 2])"),
    ("encoder", "paddle.arange(ids.shape[1])", "paddle.arange(1, ids.shape[1] + 1)"),
    ("decoder", "self.positions(paddle.arange(ids.shape[1]))", "self.positions(paddle.zeros_like(ids))"),
    ("decoder", "memory, None, None, cache)", "memory, None, None, self.decoder.gen_cache(memory))"),
]


@pytest.mark.parametrize(
    ("name", "find", "replace"),
    [
        pytest.param(*bug, id=told, marks=[] if told == "cache-lost" else pytest.mark.slow)
        for told, bug in zip(("mask", "positions", "no-positions", "cache-lost"), BUGS, strict=True)
    ],
)
def test_a_bug_in_a_port_is_seen(align, name, find, replace, tmp_path):
    text = (FOLDER / f"{name}_paddle.py").read_text()
    assert text.count(find) == 1
    port = tmp_path / f"{name}_port.py"
    port.write_text(text.replace(find, replace))
    result = check(align, name, tmp_path / "out", port)
    assert result.returncode == 1, result.stdout + result.stderr
    told = json.loads(result.stdout)["first_divergence"]
    assert told["step"] == "forward"
    assert told["port"]["file"].endswith(f"{name}_port.py")
