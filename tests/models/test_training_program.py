"""`python -m torch_ref.train` and `python -m paddle_impl.train` on a small folder of real images: both sides alike."""

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image
from safetensors.numpy import load_file
from sklearn.datasets import load_digits

from tests.models.program_probe import RUN
from tests.models.training_probe import PACKAGES

START = "import runpy; runpy.run_module('tests.models.program_probe', run_name='__main__')"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Handwritten noughts and ones as PNG: six a class to train on, three to validate."""
    digits, folder = load_digits(), tmp_path_factory.mktemp("digits")
    for name, digit in (("a", 0), ("b", 1)):
        for index, image in enumerate(digits.images[digits.target == digit][:9]):
            split, place = ("train", index) if index < 6 else ("val", index - 6)
            path = folder / split / name / f"{place}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((image * 15).astype("uint8")).resize((40, 36)).save(path)
    return folder


def command(package, data, *arguments):
    return [sys.executable, "-m", f"{package}.train", "--data", str(data), *RUN, *map(str, arguments)]


@pytest.fixture(scope="module")
def runs(root, data, tmp_path_factory):
    """{package: its folder}, with `whole`, a run of two epochs, and `part`, killed after the first and then resumed."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}

    def both(package):
        out = tmp_path_factory.mktemp(package)
        whole = subprocess.run(
            command(package, data, "--output", out / "whole"), env=env, capture_output=True, text=True
        )
        (out / "whole.txt").write_text(whole.stdout)
        assert whole.returncode == 0, whole.stderr
        first = command(package, data, "--output", out / "part")
        with subprocess.Popen(first, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            assert any(line.startswith("epoch 1 of 2") for line in process.stdout)
            process.send_signal(signal.SIGKILL)
        (out / "killed.jsonl").write_bytes((out / "part/log.jsonl").read_bytes())
        again = command(
            *(package, data, "--output", out / "part", "--resume", out / "part/last.safetensors", "--workers", "1")
        )
        resumed = subprocess.run(again, env=env, capture_output=True, text=True)
        assert resumed.returncode == 0, resumed.stderr
        (out / "resumed.txt").write_text(resumed.stdout)
        return out

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(PACKAGES, pool.map(both, PACKAGES), strict=True))


@pytest.fixture(scope="module")
def answers(run_python, data, runs, tmp_path_factory):
    """{package: {call: exit code, what was printed, files}} of `program_probe`."""

    def ask(package):
        out = tmp_path_factory.mktemp(f"{package}-calls")
        run_python(START, package, data, out, runs[package] / "whole/last.safetensors")
        return json.loads((out / "answers.json").read_text())

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(PACKAGES, pool.map(ask, PACKAGES), strict=True))


def log(path):
    """(lines of updates, lines of epochs), without the seconds, which differ."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines = [{key: value for key, value in line.items() if key != "seconds"} for line in lines]
    return [line for line in lines if "epoch" not in line], [line for line in lines if "epoch" in line]


@pytest.mark.parametrize("package", PACKAGES)
def test_a_run_leaves_checkpoints_and_a_log(runs, package):
    out = runs[package] / "whole"
    assert sorted(path.name for path in out.iterdir()) == ["best.safetensors", "last.safetensors", "log.jsonl"]
    updates, epochs = log(out / "log.jsonl")
    assert [line["iteration"] for line in updates] == list(range(6))  # twelve images in fours, twice
    assert [(line["epoch"], line["iteration"]) for line in epochs] == [(1, 3), (2, 6)]
    peak = 5e-4 * 4 / 512
    assert [line["lr"] for line in updates] == pytest.approx([1e-6 + t * (peak - 1e-6) / 15 for t in range(6)])
    for line in updates:
        assert 0 < line["loss"] < 10
        assert line["grad_norm"] > 0
    for line in epochs:
        assert line["samples"] == 6
        assert all(0 <= line[name] <= 1 for name in ("acc1", "acc5", "ema_acc1", "ema_acc5"))
    assert "epoch 2 of 2: top-1 " in (runs[package] / "whole.txt").read_text()


@pytest.mark.parametrize("package", PACKAGES)
def test_a_run_that_was_killed_goes_on_as_if_it_had_not_been(runs, package):
    whole, part = runs[package] / "whole", runs[package] / "part"
    for name in ("last.safetensors", "best.safetensors"):
        assert (part / name).read_bytes() == (whole / name).read_bytes()
    assert log(part / "log.jsonl") == log(whole / "log.jsonl")
    assert len(log(runs[package] / "killed.jsonl")[1]) == 1
    assert "after epoch 1" in (runs[package] / "resumed.txt").read_text()
    assert not list(part.glob(".*"))


def test_both_sides_speak_of_the_same_tensors(runs):
    reference, port = (load_file(runs[package] / "whole/last.safetensors") for package in PACKAGES)
    assert reference.keys() == port.keys()
    assert {name: (a.shape, a.dtype) for name, a in reference.items()} == {
        name: (a.shape, a.dtype) for name, a in port.items()
    }
    assert {name.partition("/")[0] for name in port} == {"model", "ema", "optimizer"}


@pytest.mark.parametrize(("first", "second"), [PACKAGES, PACKAGES[::-1]])
def test_either_side_goes_on_with_the_others_checkpoint(run_python, root, data, runs, tmp_path, first, second):
    """Of a finished run, so that nothing is left to do but to load all of it and to say so."""
    arguments = command(second, data, "--output", tmp_path, "--resume", runs[first] / "whole/last.safetensors")
    result = subprocess.run(arguments, capture_output=True, text=True, cwd=root)
    assert (result.returncode, result.stdout.count("after epoch 2")) == (0, 1), result.stderr


@pytest.mark.parametrize("package", PACKAGES)
def test_it_learns(answers, package):
    answer = answers[package]["learns"]
    assert answer["code"] == 0
    assert "epoch 8 of 8: top-1 100.000 %" in answer["out"]


@pytest.mark.parametrize("package", PACKAGES)
def test_it_distils(answers, package):
    assert answers[package]["teacher"]["code"] == 0
    assert "last.safetensors" in answers[package]["teacher"]["files"]


@pytest.mark.parametrize("package", PACKAGES)
def test_it_goes_on_from_weights_of_other_classes(answers, package):
    answer = answers[package]["new_head"]
    assert answer["code"] == 0, answer["error"]
    assert "pit_ti: 12 images, 3 classes" in answer["out"]


@pytest.mark.parametrize("package", PACKAGES)
def test_evaluation_gives_what_the_run_saw(answers, runs, package):
    """A checkpoint's averaged weights are taken."""
    last = log(runs[package] / "whole/log.jsonl")[1][-1]
    acc1, acc5 = (f"top-{k} {100 * last[f'ema_acc{k}']:.3f} %" for k in (1, 5))
    answer = answers[package]["eval"]
    assert answer["code"] == 0
    assert f"pit_ti: {acc1}, {acc5}, loss {last['ema_loss']:.4f}, 6 images of " in answer["out"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("resume_other_model", "last.safetensors: made by another run: model was pit_ti there and is pit_xs here"),
        ("resume_other_lr", "made by another run: lr was 0.0005 there and is 0.001 here"),
        ("resume_world", "world.safetensors: made by another run: world size was 8 there and is 1 here"),
        ("resume_cut", "cut.safetensors: truncated, corrupt or not safetensors"),
        ("resume_missing", "none.safetensors: there is no such file"),
        ("label_outside", "train/b: class 1 is outside the classes 0..0 of --num-classes 1"),
        ("empty_class", "empty_class/train/c has no images"),
        ("other_classes", "train and val have other classes, so that their numbers differ: b is in one only"),
        ("no_val", "no such image folder: "),
        ("no_data", "no such image folder: "),
        ("loose", "loose/train holds images but no class folders"),
        ("bad_image", "bad_image/train/"),
        ("odd_batch", "--batch-size 3: mixup pairs images"),
        ("large_batch", "no whole batch of 64"),
        ("augmentation", "'augmix' is no RandAugment configuration"),
        ("teacher_unknown", ":nobody: module"),
        ("teacher_unfit", "teacher.safetensors: 158 tensors are missing"),
        ("teacher_alone", "--teacher and --distillation-type soft or hard go together"),
        ("teacher_plain_model", "needs a distilled model, such as pit_ti_distilled"),
        ("eval_other_model", "last.safetensors: not for this pit_xs"),
        ("eval_without_weights", "--eval needs --pretrained FILE"),
    ],
)
@pytest.mark.parametrize("package", PACKAGES)
def test_unusable_input_is_named(answers, package, call, message):
    answer = answers[package][call]
    assert answer["code"] == 2
    last = answer["error"].splitlines()[-1]
    assert message in last
    assert "Traceback" not in answer["error"]
    assert not [name for name in answer["files"] if name.endswith(".safetensors")]


@pytest.mark.parametrize("package", PACKAGES)
def test_a_run_that_diverges_stops_and_says_where(answers, package):
    answer = answers[package]["divergence"]
    assert answer["code"] == 1
    (line,) = answer["error"].splitlines()
    assert line.startswith("error: epoch 1: loss is nan (iteration 1, micro-batch 1 of 1); the weights are unchanged: ")
    assert "no epoch was finished" in line


@pytest.mark.parametrize("package", PACKAGES)
def test_a_fault_keeps_the_last_good_checkpoint(answers, package):
    answer = answers[package]["teacher_nan"]
    assert answer["code"] == 1
    assert "error: epoch 2: loss is nan (iteration 4, " in answer["error"]
    assert "look at targets, teacher and criterion; the last good checkpoint is " in answer["error"]
    assert answer["error"].endswith("last.safetensors, of epoch 1\n")
    assert answer["files"] == ["best.safetensors", "last.safetensors", "log.jsonl"]


@pytest.mark.parametrize("package", PACKAGES)
def test_the_file_of_a_faulty_sample_is_named(answers, package):
    spoiled = answers[package]["spoiled"]
    assert "(iteration 1, micro-batch 1 of 1)" in spoiled["error"]
    assert f"logits of sample 3 not finite: {spoiled['file']};" in spoiled["error"]


@pytest.mark.parametrize("package", PACKAGES)
def test_a_run_is_not_written_over(root, data, runs, package):
    """In a process of its own, with the exit code that a shell sees."""
    out = runs[package] / "whole"
    before = (out / "last.safetensors").read_bytes()
    result = subprocess.run(command(package, data, "--output", out), capture_output=True, text=True, cwd=root)
    assert result.returncode == 2
    assert f"error: {out} holds a run already: go on with --resume " in result.stderr
    assert "Traceback" not in result.stderr
    assert (out / "last.safetensors").read_bytes() == before
