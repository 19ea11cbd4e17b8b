"""`bp_align`: gradients that add up over two passes, and a loss that was never reduced."""

from dataclasses import replace

import pytest

from align.cases import find
from align.compare.runs import compare_runs
from align.compare.waivers import Exceptions
from align.mutate.patch import Mutant, patch
from align.mutate.runner import as_runs
from align.pipeline import Options, Recorder
from align.record.process import ROOT

MODEL, LOSSES = "paddle_impl/pit.py", "paddle_impl/losses.py"
FORWARD = "        x = self.patch_embed(x)"
UNREDUCED = "return (self.confidence * label_loss + self.smoothing * smooth_loss)"
REDUCED = f"{UNREDUCED}.mean()"


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    """The verdict of `bp_align`, one iteration, on a changed copy of the port."""
    case = replace(find("pit_probe"), iterations=1)
    reference = Options(case, tmp_path_factory.mktemp("reference"), ("bp_align",), sides=("torch",))
    with Recorder(reference, lambda *_: None) as recorder:
        recorder.run()

    def of(name, file, find, replacement):
        out = tmp_path_factory.mktemp(name)
        patched = patch(Mutant(name, "bp_align", file, find, replacement), ROOT, out / "root")
        options = replace(reference, out=out, sides=("paddle",), roots=(patched.root,), reference=reference.folder)
        with Recorder(options, lambda *_: None) as recorder:
            return compare_runs(as_runs(recorder.run(), options.dtype), Exceptions())

    return of


def test_gradients_that_a_pass_throws_away_show_in_the_second_one(judge):
    clearing = "        for parameter in self.parameters():\n            parameter.clear_gradient(False)\n"
    verdict = judge("clearing", MODEL, FORWARD, clearing + FORWARD)
    assert (verdict.verdict, verdict.blamed_step) == ("misaligned", "bp_align")
    assert {row.name.partition("/")[0] for row in verdict.rows if row.bad} == {"accumulated"}


def test_without_a_bug_they_add_up(judge):
    verdict = judge("clean", MODEL, FORWARD, FORWARD + "  # as it was")
    assert verdict.verdict == "aligned", [(row.name, row.reason) for row in verdict.rows if row.bad]
    accumulated = [row.name for row in verdict.rows if row.name.startswith("accumulated/")]
    plain = [row.name for row in verdict.rows if row.name.startswith("grad/")]
    assert [name.removeprefix("accumulated/") for name in accumulated] == plain != []


def test_a_loss_that_is_not_reduced_has_another_shape(judge):
    verdict = judge("vector", LOSSES, REDUCED, UNREDUCED)
    rows = {row.name: row for row in verdict.rows}
    assert (verdict.verdict, verdict.blamed_step) == ("misaligned", "bp_align")
    assert "shape (4,) in the port, () in the reference" in rows["loss/0"].reason
