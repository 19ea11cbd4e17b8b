"""From rows to the verdict: what makes a step red, a gate blind, and which exit code that is."""

import math

import pytest

from align.compare.rows import Judgement, Row
from align.compare.verdict import NEAR, StepVerdict, Verdict, coverage, unseen


def row(name="x", verdict="aligned", kind="output", **facts):
    return Row(facts.pop("step", "forward"), name, kind, verdict, **facts)


def verdict(*steps, **facts):
    return Verdict("toy", tuple(StepVerdict(name, tuple(rows)) for name, *rows in steps), **facts)


class TestStep:
    @pytest.mark.parametrize(
        ("rows", "expected"),
        [
            ([], "empty"),
            (["aligned"], "aligned"),
            (["aligned", "insensitive"], "aligned"),
            (["insensitive", "insensitive"], "vacuous"),
            (["aligned", "misaligned"], "misaligned"),
            (["insensitive", "missing"], "misaligned"),
            (["noted", "waived"], "aligned"),
        ],
    )
    def test_verdict(self, rows, expected):
        step = StepVerdict("forward", tuple(row(str(i), word) for i, word in enumerate(rows)))
        assert step.verdict == expected
        assert bool(step) == (expected == "aligned")

    def test_the_worst_row_is_a_red_one_if_there_is_any(self):
        near = row("near", meaning=Judgement(63.0, 1.0, 64.0, "rms"))
        far = row("far", "misaligned", meaning=Judgement(2.0, 1.0, 1.5, "rms"))
        shape = row("shape", "misaligned")
        assert StepVerdict("forward", (near, row())).worst is near
        assert StepVerdict("forward", (near, far)).worst is far
        assert StepVerdict("forward", (near, far, shape)).worst is shape
        assert StepVerdict("forward", ()).worst is None

    def test_the_worse_of_the_two_judgements_counts(self):
        both = row("both", meaning=Judgement(1.0, 1.0, 64.0, "rms"), precision=Judgement(60.0, 1.0, 64.0, "rms"))
        assert StepVerdict("forward", (row("one", meaning=Judgement(32.0, 1.0, 64.0, "rms")), both)).worst is both


class TestJudgement:
    def test_nan_does_not_hold(self):
        assert not Judgement(math.nan, 1.0, 64.0, "rms").holds
        assert not Judgement(math.inf, 1.0, 64.0, "rms").holds

    def test_without_noise_any_error_is_infinitely_many_times_it(self):
        assert Judgement(1e-30, 0.0, 0.0, "rms").ratio == math.inf
        assert (Judgement(0.0, 0.0, 0.0, "rms").ratio, Judgement(0.0, 0.0, 0.0, "rms").holds) == (0.0, True)


class TestRun:
    @pytest.mark.parametrize(
        ("steps", "facts", "expected", "code", "blamed"),
        [
            ([("forward", row())], {}, "aligned", 0, None),
            ([], {}, "empty", 5, None),
            ([("forward",)], {}, "empty", 5, "forward"),
            ([("forward", row()), ("loss",)], {}, "misaligned", 1, "loss"),
            (
                [("loss", row(verdict="misaligned")), ("forward", row(verdict="missing"))],
                {},
                "misaligned",
                1,
                "forward",
            ),
            ([("forward", row(verdict="insensitive"))], {}, "vacuous", 1, "forward"),
            ([("forward", row(), row("y", "insensitive"))], {}, "vacuous", 1, None),
            ([("forward", row())], {"complaints": ("stale",)}, "misaligned", 1, None),
        ],
    )
    def test_verdict(self, steps, facts, expected, code, blamed):
        result = verdict(*steps, **facts)
        assert (result.verdict, result.exit_code, result.blamed_step) == (expected, code, blamed)
        assert bool(result) == (code == 0)

    def test_what_is_kept_around_the_first_difference(self):
        rows = [row(str(i)) for i in range(20)]
        rows[9], rows[15] = row("9", "misaligned"), row("15", "misaligned")
        kept = verdict(("weights", row("w")), ("forward", *rows)).around_first_difference()
        assert kept == {"forward": {str(i) for i in range(9 - NEAR, 9 + NEAR + 1)}}
        assert verdict(("forward", row())).around_first_difference() == {}

    def test_what_is_kept_around_the_first_difference_inside_the_model(self):
        """A result that `forward` records before its modules would say nothing of where the difference comes from."""
        rows = [row("features", "misaligned"), *(row(f"activation/{i}/out") for i in range(20)), row("logits")]
        rows[12] = row("activation/11/out", "misaligned")
        kept = verdict(("forward", *rows)).around_first_difference()["forward"]
        around = {f"activation/{i}/out" for i in (*range(NEAR), *range(11 - NEAR, 11 + NEAR + 1))}
        assert kept == {"features", *around}


class TestBlind:
    """A parameter, an output, a metric of which no row could have shown a wrong value."""

    @pytest.mark.parametrize("kind", ["output", "metric", "parameter", "gradient"])
    def test_a_subject_without_a_sensitive_row(self, kind):
        assert unseen([row("a", kind=kind), row("b", "insensitive", kind)]) == (f"{kind} b",)

    @pytest.mark.parametrize("kind", ["activation", "input", "statistic", "curve", "buffer"])
    def test_other_kinds_are_seen_in_the_outputs(self, kind):
        assert unseen([row("a", "insensitive", kind)]) == ()

    def test_inside_a_model_gradients_are_seen_in_those_of_parameters(self):
        assert unseen([row("activation_grad/fc/out", "insensitive", "gradient")]) == ()

    def test_a_parameter_is_one_subject_over_all_its_rows(self):
        rows = [
            row("fc.weight", "insensitive", "parameter", step="weights"),
            row("grad/fc.weight", "insensitive", "gradient", step="bp_align"),
            row("param/fc.weight", "insensitive", "parameter", step="bp_align"),
        ]
        assert unseen(rows) == ("parameter fc.weight",)
        assert unseen([*rows, row("param/fc.weight", kind="parameter", step="train_align")]) == ()

    def test_a_parameter_of_a_layer_called_activation_is_a_parameter(self):
        assert unseen([row("activation.weight", "insensitive", "parameter")]) == ("parameter activation.weight",)

    @pytest.mark.parametrize("word", ["aligned", "misaligned", "missing", "noted", "waived"])
    def test_what_was_seen(self, word):
        assert unseen([row("a", "insensitive"), row("a", word)]) == ()


def test_coverage(bench):
    bench.truth |= {"y": bench.truth["x"] + 1, "z": bench.truth["x"] + 2, "zero": bench.truth["x"] * 0}
    bench.kinds = {"z": "gradient", "zero": "gradient"}
    bench.port["y"] = None
    rows = bench.verdict().rows
    assert coverage(rows) == {
        "output": {"compared": 1, "total": 2, "waived": 0, "insensitive": 0},
        "gradient": {"compared": 2, "total": 2, "waived": 0, "insensitive": 1},
    }
