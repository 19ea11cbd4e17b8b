"""A reference process that is kept, and ports with a bug put in, each in a copy of a kept Paddle process."""

import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from align.cases import find
from align.cli.mutate import SHIPPED as CATALOGUE
from align.locate.search import replayed
from align.mutate.patch import read_catalogue
from align.pipeline import Options, Recorder
from align.record.process import SideProcess

# Of the shipped catalogue: one at each kind of place in the network.
IDS = """
patch-embedding-stride-shift position-embedding-missing late-norm-epsilon qkv-order heads-interleaved scale-missing
scale-by-width softmax-axis attention-output-heads-order one-gelu-approximate activation-before-the-first-layer
pooling-padding class-token-path-rolled class-token-first-of-the-map map-reshaped-not-transposed
attention-residual-missing mlp-residual-scaled final-norm-missing final-norm-epsilon-1e-5 head-reads-the-wrong-token
heads-summed stage-detached position-embedding-detached gradient-doubled attention-scores-detached class-token-order
position-embedding-transposed patch-embedding-channels-reversed dropout-on-in-evaluation value-scaled
key-scaled-too attention-transposed norm-applied-twice wrong-norm relu-for-gelu residual-from-the-norm
mlp-output-shifted pooling-bias-dropped pooling-groups-order pooling-stride-lost class-token-last flatten-by-columns
reshape-for-transpose map-back-by-columns block-skipped last-stage-tokens-dropped tokens-not-pooled
evaluation-class-head-only head-detached value-detached residual-detached norm-bias-frozen class-token-stopped
""".split()  # noqa: SIM905 - a list of 50 would take a line each
SHIPPED = {mutant.id: mutant for mutant in read_catalogue(CATALOGUE)}
BUGS = {id: asdict(SHIPPED[id]) for id in IDS}
# Of another shape from there on: what follows must be looked at on the reference's values all the same.
BUGS["pooling-without-padding"] = {
    "step": "forward",
    "file": "paddle_impl/pit.py",
    "find": "padding=stride // 2",
    "replace": "padding=(stride - 1) // 2",
    "expect": {"module": "pools.0.conv"},
}


class Bench:
    """Locates what differs between the reference and a port patched by some of `BUGS`; a copy of `paddle` a call."""

    def __init__(self, folder: Path, root: Path, case, paddle: SideProcess) -> None:
        self._folder, self._root, self._case, self._port = folder, root, case, paddle
        self._reference = SideProcess("torch", folder / "torch.log")

    def locate(self, step: str, *bugs: str, mapping=None):
        """(divergences, changed lines by bug: (first, last))."""
        copy = self._folder / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self._root / "paddle_impl", copy / "paddle_impl", ignore=shutil.ignore_patterns("__pycache__"))
        changed = {}
        for bug in bugs:
            path = copy / BUGS[bug]["file"]
            before = path.read_text()
            after = before.replace(BUGS[bug]["find"], BUGS[bug]["replace"], 1)
            assert after != before, f"{bug}: the text to replace is not in the port"
            path.write_text(after)
            changed[bug] = _lines(before.splitlines(), after.splitlines())
        with self._port.copied((copy,)):
            options = Options(replace(self._case, mapping=mapping or {}), self._folder, (step,))
            options.folder.mkdir(parents=True, exist_ok=True)
            recorder = Recorder(options, lambda *_: None, {"torch": self._reference, "paddle": self._port})
            recorder.open_twins()
            return replayed(recorder, step), changed

    def close(self) -> None:
        self._reference.kill()


def _lines(before: list[str], after: list[str]) -> tuple[int, int]:
    """First and last line, from 1, in which the changed text differs; of a mere deletion the line that follows."""
    first = next(i for i, (x, y) in enumerate(zip(before, after, strict=False)) if x != y)
    same = next(i for i, (x, y) in enumerate(zip(reversed(before), reversed(after), strict=False)) if x != y)
    return first + 1, max(len(after) - same, first + 1)


@pytest.fixture(scope="module")
def bench(tmp_path_factory, root, paddle):
    made = Bench(tmp_path_factory.mktemp("locate"), root, find("pit_probe"), paddle)
    yield made
    made.close()


@pytest.fixture(scope="module")
def unlike(tmp_path_factory, root, paddle):
    """The same port beside timm's own model of the same sizes: other module tree, other names."""
    changes = {"reference": "tests.align.locate.timm_pit:distilled", "reference_package": "torch_ref"}
    case = replace(find("pit_probe"), port_names="paddle_impl.weights:timm_to_official", **changes)
    made = Bench(tmp_path_factory.mktemp("unlike"), root, case, paddle)
    yield made
    made.close()


def meets(where, lines):
    """Whether the blamed statement, or the constructor call, touches the changed lines."""
    spans = [(where.line, where.end_line)]
    if where.built:
        spans.append((where.built["line"], where.built["end_line"]))
    return any(first <= lines[1] and last >= lines[0] for first, last in spans)
