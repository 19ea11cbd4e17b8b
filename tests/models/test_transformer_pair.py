"""Transformers of both frameworks' own layers: unlike names, fused projections, masks, a cache; and no mapping."""

from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
PAIRS = {
    "encoder": ("Encoder", ["ids=3,9:int64<50", "mask=3,9:bool"]),
    "decoder": ("Decoder", ["2,5:int64<30", "2,4,16"]),
}


def verdict(checked, name, port=None):
    built, specs = PAIRS[name]
    paths = [FOLDER / f"{name}_torch.py", port or FOLDER / f"{name}_paddle.py"]
    given = [argument for spec in specs for argument in ("--input", spec)]
    return checked(*(f"{path}:{built}" for path in paths), *given)


@pytest.mark.parametrize("name", PAIRS)
def test_a_pair_is_aligned_without_a_mapping_file(checked, name):
    result = verdict(checked, name)
    assert result.verdict == "aligned", [row for row in result.rows if row.bad]
    found = {row.name: row for row in result.rows}
    fused = [row for row in found.values() if row.name.endswith("grad/encoder.layers.1.self_attn.in_proj_weight")]
    assert all(row.matched_by == "value" and row.verdict == "aligned" for row in fused)
    assert len(fused) == (2 if name == "encoder" else 0)
    assert any(row.kind == "gradient" and row.verdict == "aligned" for row in found.values())


BUGS = {
    "mask": ("encoder", "mask.unsqueeze([1, 2])", "mask.logical_not().unsqueeze([1, 2])"),
    "positions": ("encoder", "paddle.arange(ids.shape[1])", "paddle.arange(1, ids.shape[1] + 1)"),
    "no_positions": (
        "decoder",
        "self.positions(paddle.arange(ids.shape[1]))",
        "self.positions(paddle.zeros_like(ids))",
    ),
    "cache_lost": ("decoder", "memory, None, None, cache)", "memory, None, None, self.decoder.gen_cache(memory))"),
}


@pytest.mark.parametrize("bug", [pytest.param(b, marks=[] if b == "cache_lost" else pytest.mark.slow) for b in BUGS])
def test_a_bug_in_a_port_is_seen(checked, bug, tmp_path):
    name, find, replace = BUGS[bug]
    text = (FOLDER / f"{name}_paddle.py").read_text()
    assert text.count(find) == 1
    port = tmp_path / f"{bug}_port.py"
    port.write_text(text.replace(find, replace))
    result = verdict(checked, name, port)
    assert result.verdict == "misaligned"
    first = result.divergences[0]
    assert first.step == "forward"
    assert first.port.file == str(port)
