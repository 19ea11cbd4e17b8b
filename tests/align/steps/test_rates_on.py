"""`train_align` with the rates on: the pair is green, and each bug of dropout, drop-path or the loop is red there."""

from contextlib import ExitStack, nullcontext
from dataclasses import replace

import pytest

from align.cases import find
from align.compare.runs import compare_runs
from align.compare.waivers import Exceptions
from align.errors import UsageError
from align.locate.search import divergences
from align.mutate.patch import Mutant, patch
from align.mutate.runner import as_runs
from align.pipeline import Options, Recorder, launch
from align.record.process import ROOT

MODEL, LOOP = "paddle_impl/pit.py", "paddle_impl/train.py"
MASK = "paddle.bernoulli(paddle.full(shape, keep_prob, x.dtype))"
CLEARING = "optimizer.clear_grad(set_to_zero=False)\n    return record"

# file, text, replacement, and rows that must be red
BUGS = {
    "drop-path-per-batch": (
        MODEL,
        "shape = [x.shape[0]] + [1] * (x.ndim - 1)",
        "shape = [1] * x.ndim",
        ("draw/transformers.1.blocks.0.drop_path1/0/shape", "natural/transformers.1.blocks.0.drop_path1/varies"),
    ),
    "schedule-reaches-the-rate": (
        MODEL,
        "drop_path_rate * i / sum(depth)",
        "drop_path_rate * i / (sum(depth) - 1)",
        ("draw/transformers.1.blocks.0.drop_path1/0/mask", "random/loss"),
    ),
    "schedule-restarts-per-stage": (
        MODEL,
        "rates = drop_path[first : first + depth[stage]]",
        "rates = drop_path[: depth[stage]]",
        ("draw/transformers.2.blocks.0.drop_path1/0/shape", "random/loss"),
    ),
    "never-dropping": (
        MODEL,
        "if self.drop_prob == 0.0 or not self.training:",
        "if True:",
        ("draw/transformers.1.blocks.0.drop_path1/0/shape", "random/loss", "draws/updates"),
    ),
    "dropping-in-evaluation": (
        MODEL,
        "if self.drop_prob == 0.0 or not self.training:",
        "if self.drop_prob == 0.0:",
        ("loop/evaluation_draws_nothing", "loop/evaluated_loss"),
    ),
    "downscale-in-infer": (
        MODEL,
        "self.proj_drop = nn.Dropout(proj_drop)",
        'self.proj_drop = nn.Dropout(proj_drop, mode="downscale_in_infer")',
        ("natural/transformers.0.blocks.0.attn.proj_drop/scale", "random/loss"),
    ),
    "drop-path-after-the-residual": (
        MODEL,
        "x = x + self.drop_path2(self.mlp(self.norm2(x)))",
        "x = self.drop_path2(x + self.mlp(self.norm2(x)))",
        ("random/loss", "random/grad/pos_embed"),
    ),
    "missing-scale": (
        MODEL,
        "if keep_prob > 0.0 and self.scale_by_keep:",
        "if False:",
        ("natural/transformers.1.blocks.0.drop_path1/scale", "random/loss"),
    ),
    "rates-swapped": (
        MODEL,
        "mlp_ratio, drop_rate, attn_drop_rate, rates",
        "mlp_ratio, attn_drop_rate, drop_rate, rates",
        ("draw/transformers.0.blocks.0.attn.attn_drop/0/mask",),
    ),
    "training-mode-not-entered": (LOOP, "    model.train()\n", "", ("draws/updates", "loop/loss")),
    "gradients-not-cleared": (LOOP, CLEARING, "return record", ("loop/gradients_cleared", "loop/loss")),
    "gradients-cleared-to-zero": (
        LOOP,
        CLEARING,
        CLEARING.replace("set_to_zero=False", "set_to_zero=True"),
        ("loop/gradients_cleared",),
    ),
    "mode-not-restored": (LOOP, "module.training = mode", "pass", ("loop/modules_in_training",)),
    "vector-loss-summed": (
        LOOP,
        "if loss.ndim:",
        "loss = loss.sum()\n        if loss.ndim:",
        ("loop/refuses_vector_loss",),
    ),
    "average-moved-per-micro-batch": (
        LOOP,
        "        loss.backward()\n",
        "        loss.backward()\n        if ema is not None:\n            ema.update(model)\n",
        ("loop/ema/pos_embed",),
    ),
    "losses-not-averaged": (LOOP, "loss = loss / len(micro_batches)", "loss = loss", ("loop/loss",)),
}

# The same masks in other words: a port that draws so is right.
EQUIVALENT = {
    "floor": f"paddle.floor(keep_prob + paddle.rand(shape, x.dtype))  # {MASK}",
    "comparison": f"(paddle.rand(shape, x.dtype) >= self.drop_prob).astype(x.dtype)  # {MASK}",
}


@pytest.fixture(scope="module")
def judge(paddle, tmp_path_factory):
    """The verdict on a changed copy of the port, against a reference that is recorded once: a short run."""
    folder = tmp_path_factory.mktemp("rates")
    case = find("pit_probe")
    case = replace(case, training=replace(case.training, iterations=2))
    reference = Options(case, folder, ("train_align",), sides=("torch",))
    with ExitStack() as stack:
        torch = stack.enter_context(launch("torch", reference))
        with Recorder(reference, lambda *_: None, {"torch": torch}) as recorder:
            recorder.run()

        def of(name, file, find, replacement, place=False, kept=True):
            """`kept`: through the processes that stay for other ports, and not a new one, which a run may end."""
            out = tmp_path_factory.mktemp(name)
            patched = patch(Mutant(name, "train_align", file, find, replacement), ROOT, out / "root")
            options = replace(reference, out=out, sides=("paddle",), roots=(patched.root,), reference=reference.folder)
            processes = {"torch": torch, "paddle": paddle} if kept else {}
            copy = paddle.copied(options.roots) if kept else nullcontext()
            with copy, Recorder(options, lambda *_: None, processes) as recorder:
                verdict = compare_runs(as_runs(recorder.run(), options.dtype), Exceptions())
                if not place:
                    return verdict
                recorder.open_twins()
                return divergences(recorder, verdict)

        yield of


@pytest.mark.slow  # each trains a port in both types; the wrong mask below is red too
@pytest.mark.parametrize("name", BUGS)
def test_a_bug_is_red(judge, name):
    file, text, replacement, rows = BUGS[name]
    verdict = judge(name, file, text, replacement)
    assert (verdict.verdict, verdict.blamed_step) == ("misaligned", "train_align")
    red = {row.name for row in verdict.rows if row.bad}
    assert not set(rows) - red


def test_the_pair_is_green_and_everything_in_it_could_have_failed(judge):
    verdict = judge("clean", MODEL, "import paddle\n", "import paddle  # as it was\n")
    assert verdict.verdict == "aligned", [(row.name, row.reason) for row in verdict.rows if row.bad]
    kinds = {row.name.partition("/")[0] for row in verdict.rows}
    assert {"draw", "random", "natural", "loop", "param"} <= kinds
    assert [row.name for row in verdict.rows if row.verdict != "aligned"] == []
    draws = {row.name for row in verdict.rows if row.name.startswith("draw/")}
    # Every block's dropouts; drop-path from the second block on, because the first one's rate is 0.
    assert "draw/transformers.0.blocks.0.attn.attn_drop/0/mask" in draws
    assert "draw/transformers.0.blocks.0.drop_path1/0/mask" not in draws
    assert "draw/transformers.1.blocks.0.drop_path1/0/mask" in draws


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n == next(iter(EQUIVALENT)) else pytest.mark.slow) for n in EQUIVALENT]
)
def test_another_idiom_is_green(judge, name):
    verdict = judge(name, MODEL, MASK, EQUIVALENT[name])
    assert verdict.verdict == "aligned", [(row.name, row.reason) for row in verdict.rows if row.bad]
    noted = [row.name for row in verdict.rows if row.verdict == "noted"]
    assert noted
    assert all(row.startswith("draw/") and row.endswith(("/mask", "/uniform")) for row in noted)


def test_a_wrong_mask_is_named_with_its_line(judge):
    wrong = "paddle.bernoulli(paddle.full([1] * x.ndim, keep_prob, x.dtype))"
    found = judge("located", MODEL, MASK, wrong, place=True)[0]
    assert (found.step, found.module) == ("train_align", "transformers.1.blocks.0.drop_path1")
    assert "paddle.bernoulli" in found.port.code
    assert "DropPath(drop_path)" in found.port.built["code"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("drop_path_rate * i / sum(depth)", "drop_path_rate * (i + 1) / sum(depth)"),
        ("Attention(dim, num_heads, attn_drop, drop)", "Attention(dim, num_heads, drop, attn_drop)"),
    ],
)
def test_a_wrong_rate_is_blamed_where_it_is_made(judge, right, wrong):
    """However many constructors it comes through to the module that uses it."""
    found = judge("made", MODEL, right, wrong, place=True)[0]
    assert wrong in found.port.code
    assert found.cause["id"] in ("drop-prob", "dropout-rate")


@pytest.mark.slow
def test_a_variable_that_tells_an_operation_a_wrong_shape_is_blamed(judge):
    right, wrong = "shape = [x.shape[0]] + [1] * (x.ndim - 1)", "shape = [x.shape[0], x.shape[1]] + [1] * (x.ndim - 2)"
    found = judge("told", MODEL, right, wrong, place=True)[0]
    assert (found.step, found.module) == ("train_align", "transformers.1.blocks.0.drop_path1")
    assert found.port.code == wrong


def test_a_draw_that_has_no_answer_stops_the_run(judge):
    drawing = "paddle.clip(paddle.poisson(paddle.full(shape, keep_prob, x.dtype)), 0, 1)"
    with pytest.raises(UsageError, match=r"poisson draws random numbers in transformers\.1\.blocks\.0\.drop_path1"):
        judge("unanswered", MODEL, MASK, drawing, kept=False)
