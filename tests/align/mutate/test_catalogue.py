"""The shipped catalogue: each entry fits the port, all known bugs are there, and the verdict is what they expect."""

import ast
import json
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest
import yaml

from align.case import STEPS
from align.cases import find
from align.cli.mutate import SHIPPED
from align.mutate.matrix import tried
from align.mutate.outcome import score
from align.mutate.patch import changed_text, read_catalogue
from align.pipeline import Options
from align.record.process import ROOT

MUTANTS = read_catalogue(SHIPPED)
# The project's list of porting bugs, by name.
REPORTED = """
linear-square-not-transposed fc-list-misses-head-dist converter-skips-unmatched-names bn-buffer-names-not-mapped
fp16-checkpoint-roundtrip resize-bilinear resize-tuple-squash center-crop-floor mean-std-half resize-without-antialias
cutmix-bbox-axes-swapped label-inplace-reshape mean-std-rounded-255 float-image-not-scaled train-aug-recipe-drift
cutmix-lam-not-corrected random-erasing-on-copy train-loader-drop-last init-linear-default init-depthwise-fan
init-vit-style-on-pit init-kaiming-defaults ln-eps-default-all ln-eps-final-norm gelu-tanh-one-block
qkv-head-interleave attn-scale-missing sdpa-layout pos-embed-interp-mode cls-slice-wrong-end pool-channel-tile-order
dist-eval-cls-head-only conv-or-linear-bias-attr-none ln-eps-too-small relu-for-gelu head-dim-order-swapped
pos-embed-missing unflatten-reshape-no-transpose final-norm-missing inplace-iadd-aliasing pad-2n-axis-order
interpolate-to-size-1 acc-mean-of-batches acc-percent-vs-fraction acc-label-broadcast eval-drop-last topk-tie-order
kl-log-target-missing ce-double-softmax ce-ignore-with-smoothing ce-none-shape-broadcast label-smoothing-c-minus-1
soft-target-shape-coincidence distill-heads-or-alpha-swapped loss-sum-not-mean pos-embed-stop-gradient stage-detach
missing-clear-grad param-frozen nowd-matches-structured-names nowd-only-pos-cls adam-l2-for-adamw adam-epsilon-hat
group-lr-is-a-ratio clip-per-group sgd-without-momentum paramattr-overrides-decay nowd-suffix-on-auto-names
clip-by-value rmsprop-eps-inside-sqrt decay-uses-stale-lr lr-last-epoch-0 lr-cosine-after-warmup
lr-warmup-steps-by-epoch-inverted lr-step-before-optimizer lr-scales-warmup-and-min lr-no-linear-scaling
recipe-from-wrong-model droppath-per-batch droppath-schedule-linspace train-mode-not-restored
ema-update-per-microbatch bn-momentum-convention droppath-restart-per-stage droppath-training-flag dist-train-averages
ema-buffers-skipped
""".split()  # noqa: SIM905 - a list of 87 would take a line each
# One a step, and one that is no bug.
TRIED = (
    "crop-floor",
    "square-weights-not-transposed",
    "init-bias-zero",
    "late-norm-epsilon",
    "accuracy-in-percent",
    "alpha-swapped",
    "value-detached",
    "second-beta-0.99",
    "droppath-not-rescaled",
    "eq-k-bias-removed",
)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.id)
def test_it_fits_the_port_and_leaves_python(mutant, root):
    text = (root / mutant.file).read_text()
    changed = ast.parse(changed_text(mutant, text))
    assert ast.dump(changed) != ast.dump(ast.parse(text))


def test_no_two_are_the_same_bug(root):
    changed = Counter(
        (mutant.file, ast.dump(ast.parse(changed_text(mutant, (root / mutant.file).read_text())))) for mutant in MUTANTS
    )
    assert set(changed.values()) == {1}


def test_a_hundred_bugs_over_all_steps():
    bugs = [mutant for mutant in MUTANTS if not mutant.equivalent]
    assert len(bugs) >= 100
    assert {mutant.step for mutant in bugs} == set(STEPS)


def test_every_bug_says_where_its_line_is():
    assert [m.id for m in MUTANTS if not m.equivalent and not m.expect.get("line")] == []


def test_what_is_no_bug_has_its_proof():
    same = [mutant for mutant in MUTANTS if mutant.equivalent]
    assert len(same) >= 6
    assert [mutant.id for mutant in same if not mutant.why or mutant.expect] == []


def test_every_known_porting_bug_is_there_or_excused():
    entries = yaml.safe_load(SHIPPED.read_text())
    there = {entry["id"] for entry in entries} | {entry["known_as"] for entry in entries if "known_as" in entry}
    excused = set(re.findall(r"^#   ([a-z0-9-]+): \S", SHIPPED.read_text(), re.MULTILINE))
    assert set(REPORTED) - there == excused
    assert {entry["known_as"] for entry in entries if "known_as" in entry} <= set(REPORTED)


def mutate(folder, *arguments):
    """(exit code, what `align mutate --json` printed)."""
    command = (sys.executable, "-m", "align", "mutate", "--json", "--out", str(folder), *arguments)
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.stdout, result.stderr
    return result.returncode, json.loads(result.stdout)


@pytest.mark.slow
def test_one_of_every_step_is_what_it_expects(tmp_path):
    case = find("pit_probe")
    case = replace(
        case, training=replace(case.training, iterations=12)
    )  # the reference is recorded anew: keep it short
    options = Options(case, tmp_path, case.steps)
    chosen = [mutant for mutant in MUTANTS if mutant.id in TRIED]
    rows = [(mutant, outcome, score(mutant, outcome)) for mutant, outcome in tried(chosen, options, tmp_path, 2, ROOT)]
    found = {mutant.id: [part for part, held in vars(scored).items() if held is False] for mutant, _, scored in rows}
    assert [outcome.error for _, outcome, _ in rows if outcome.error] == []
    assert found == {id: [] for id in TRIED}
    assert [outcome.id for _, outcome, _ in rows if not outcome.killed] == ["eq-k-bias-removed"]


@pytest.mark.slow
def test_the_whole_catalogue(tmp_path):
    _, told = mutate(tmp_path)
    found = told["summary"]
    assert (found["errors"], found["flagged_equivalent"]) == (0, 0)
    assert found["killed"] == found["step_right"] == found["mutants"]
    for part, least in (("module", 0.95), ("line", 0.9), ("cause", 0.8)):
        assert found[f"{part}_right"] >= least * found[f"{part}_total"], part
