"""Steps without a model to replay: the source line that was changed is the one that is named."""

import shutil
from pathlib import Path

import pytest
import yaml

from align.cases import find
from align.locate.search import backwards, lined
from align.pipeline import Options, Recorder
from align.record.process import SideProcess
from tests.align.locate.conftest import _lines, meets

BUGS = {bug["id"]: bug for bug in yaml.safe_load((Path(__file__).parent / "line_bugs.yaml").read_text())}
# The others are run with --slow: a step of images is traced on both sides.
QUICK = {"one-sample-too-many", "ignored-labels-counted", "one-term-detached"}
LOSSES = ("cross_entropy", "soft_target_cross_entropy", "label_smoothing", "distillation_soft", "distillation_hard")
GRADIENTS = [f"{loss}/grad" for loss in LOSSES]


class LineBench:
    """Traces the lines of a step on both sides, the port patched by one of `BUGS`; a copy of `paddle` a call."""

    def __init__(self, folder: Path, root: Path, paddle: SideProcess) -> None:
        self._folder, self._root, self._port = folder, root, paddle
        self._reference = SideProcess("torch", folder / "torch.log")

    def locate(self, step: str, bug: str | None = None):
        """(divergences, changed lines (first, last), or None without a bug)."""
        copy, changed = self._folder / "copy", None
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self._root / "paddle_impl", copy / "paddle_impl", ignore=shutil.ignore_patterns("__pycache__"))
        if bug:
            path = copy / BUGS[bug]["file"]
            text = path.read_text()
            for check in BUGS[bug].get("silenced", ()):
                assert check in text
                text = text.replace(check, "if False:", 1)
            after = text.replace(BUGS[bug]["find"], BUGS[bug]["replace"], 1)
            assert after != text, f"{bug}: the text to replace is not in the port"
            path.write_text(after)
            changed = _lines(text.splitlines(), after.splitlines())
        with self._port.copied((copy,)):
            options = Options(find("pit_probe"), self._folder, (step,))
            options.folder.mkdir(parents=True, exist_ok=True)
            recorder = Recorder(options, lambda *_: None, {"torch": self._reference, "paddle": self._port})
            recorder.open_twins()
            if step == "metric":  # is computed on what the reference recorded
                self._reference.request("step", run="torch-float64", step="forward")
            rows = BUGS[bug].get("rows") if bug else GRADIENTS if step == "loss" else None
            recorded = BUGS[bug].get("recorded") if bug else None
            return [*lined(recorder, step, recorded), *(backwards(recorder, step, rows) if rows else [])], changed

    def close(self) -> None:
        self._reference.kill()


@pytest.fixture(scope="module")
def line_bench(tmp_path_factory, root, paddle):
    made = LineBench(tmp_path_factory.mktemp("lines"), root, paddle)
    yield made
    made.close()


def marks(bug):
    """What is known to be missed must fail: when it no longer does, the entry has to say so."""
    missed = [pytest.mark.xfail(reason=BUGS[bug]["missed"], strict=True)] if "missed" in BUGS[bug] else []
    return missed if bug in QUICK else [pytest.mark.slow, *missed]


@pytest.mark.parametrize("bug", [pytest.param(b, marks=marks(b)) for b in BUGS])
def test_the_changed_line_is_named(line_bench, bug):
    found, changed = line_bench.locate(BUGS[bug]["step"], bug)
    assert found, "nothing was found"
    first = found[0]
    assert first.step == BUGS[bug]["step"]
    assert first.module == ""
    assert first.port.file.endswith(BUGS[bug]["file"])
    assert meets(first.port, changed), f"{first.port} built {first.port.built}, changed {changed}: {first.what}"
    if first.reference:  # what only a port needs has no counterpart
        assert not first.reference.file.endswith(BUGS[bug]["file"])
        assert Path(first.reference.file).is_file()


@pytest.mark.parametrize(
    "step", ["weights", "metric", "loss", *(pytest.param(s, marks=pytest.mark.slow) for s in ("data", "train_align"))]
)
def test_a_clean_pair_has_no_divergence(line_bench, step):
    assert line_bench.locate(step) == ([], None)
