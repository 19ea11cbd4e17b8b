"""A changed port runs for real, alone, against a reference that is recorded once."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from align.cases import find
from align.errors import AlignError
from align.mutate.patch import Mutant, Patched
from align.mutate.runner import Runner, check_imported
from align.pipeline import Options
from align.record.manifest import MANIFEST, Manifest, Recording, finish, start

EPSILON = Mutant("epsilon", "forward", "paddle_impl/pit.py", "nn.LayerNorm(dim, epsilon=1e-6)", "nn.LayerNorm(dim)")


@pytest.fixture(scope="module")
def runner(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mutants")
    with Runner(Options(find("pit_probe"), folder, ("forward",)), folder) as made:
        yield made


def test_a_bug_is_seen_where_it_is(runner):
    outcome = runner.run(EPSILON)
    assert (outcome.error, outcome.verdict, outcome.blamed_step, outcome.killed) == (
        None,
        "misaligned",
        "forward",
        True,
    )
    assert 1e6 < outcome.worst["forward"].ratio < math.inf
    assert outcome.worst["forward"].row.startswith("activation/")
    assert not outcome.worst["forward"].exact
    assert outcome.seconds > 0
    assert outcome.classic


def test_what_changes_nothing_stays_green(runner):
    outcome = runner.run(replace(EPSILON, replace=EPSILON.find + "  # as before"))
    assert (outcome.error, outcome.verdict, outcome.blamed_step, outcome.killed) == (None, "aligned", None, False)
    assert outcome.worst["forward"].ratio < 10
    assert not outcome.classic


def test_the_reference_is_recorded_once(runner):
    options = runner.reference()
    recordings = sorted(options.folder.glob(f"torch-*/{MANIFEST}"))
    times = [path.stat().st_mtime_ns for path in recordings]
    with Runner(options, options.out.parent) as again:
        assert again.reference().out == options.out
    assert [path.stat().st_mtime_ns for path in sorted(options.folder.glob(f"torch-*/{MANIFEST}"))] == times
    assert len(recordings) == 2
    assert not list(options.folder.glob("paddle-*"))  # the port's are removed with its copy


def test_another_case_has_another_reference(runner):
    case = find("pit_probe")
    keys = {Runner(Options(replace(case, seed=seed), Path(), ("forward",)), Path())._key() for seed in (1, 2)}
    keys |= {Runner(Options(case, Path(), steps), Path())._key() for steps in (("forward",), ("forward", "loss"))}
    assert len(keys) == 4


@pytest.mark.parametrize(
    ("mutant", "told"),
    [
        (replace(EPSILON, find="no such text"), "holds the text to find 0 times"),
        (replace(EPSILON, replace="nn.LayerNorm(dim"), "SyntaxError"),
        (
            Mutant("m", "metric", "paddle_impl/metrics.py", "hit / samples", "hit"),
            "no step of pit_probe imports paddle_impl/metrics.py",
        ),
    ],
)
def test_what_cannot_be_tried_is_an_error_and_no_kill(runner, mutant, told):
    outcome = runner.run(mutant)
    assert told in outcome.error
    assert (outcome.verdict, outcome.killed) == (None, False)


@pytest.mark.parametrize(
    ("file", "sha256", "told"),
    [("elsewhere/port/model.py", "right", "not in the copy"), ("copy/port/model.py", "wrong", "its hash differs")],
)
def test_a_run_of_another_file_is_no_run_of_the_mutant(tmp_path, file, sha256, told):
    code = {"port.model": {"file": str(tmp_path / file), "sha256": sha256}}
    folder = finish(start(tmp_path, "paddle"), Manifest("case", "paddle", "cpu", "float32", "plan", code=code))
    patched = Patched(tmp_path / "copy", tmp_path / "copy/port/model.py", "right")
    with pytest.raises(AlignError, match=told):
        check_imported(Recording(folder), patched, Mutant("m", "forward", "port/model.py", "a", "b"))
