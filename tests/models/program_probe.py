"""Calls of `python -m PACKAGE.train` in one process: run as `__main__` with PACKAGE DATA OUT CHECKPOINT.

DATA is a folder of images, CHECKPOINT a training state of `RUN`. Writes OUT/answers.json: what each call printed, its
exit code and the files that it left.
"""

import contextlib
import importlib
import io
import json
import shutil
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

RUN = (
    "--image-size",
    "32",
    "--epochs",
    "2",
    "--batch-size",
    "4",
    "--workers",
    "0",
    "--drop",
    "0.1",
    "--clip-grad",
    "1",
)
TEACHER = {
    "conv.weight": (4, 3, 3, 3),
    "conv.bias": (4,),
    "norm.weight": (4,),
    "norm.bias": (4,),
    "norm.running_mean": (4,),
    "norm.running_var": (4,),
    "fc.weight": (2, 4),
    "fc.bias": (2,),
}
PLAIN = ("--aa", "none", "--color-jitter", "0", "--reprob", "0", "--mixup", "0", "--cutmix", "0", "--no-repeated-aug")


def teacher_weights(path):
    rng = np.random.default_rng(0)
    arrays = {name: rng.random(shape, "float32") + 0.5 for name, shape in TEACHER.items()}
    save_file({**arrays, "seen": np.zeros(2, "int64")}, path)


def folders(data, out):
    """Folders of images, each with one thing wrong."""
    for name in ("empty_class", "other_classes", "no_val", "loose", "bad_image"):
        shutil.copytree(data, out / name)
    (out / "empty_class/train/c").mkdir()
    (out / "other_classes/val/b").rename(out / "other_classes/val/z")
    shutil.rmtree(out / "no_val/val")
    for split in ("train", "val"):
        shutil.move(out / f"loose/{split}/a/0.png", out / f"loose/{split}/0.png")
        shutil.rmtree(out / f"loose/{split}/a")
        shutil.rmtree(out / f"loose/{split}/b")
    for path in (out / "bad_image/train").glob("*/*.png"):
        path.write_bytes(b"no image")


def states(checkpoint, out):
    """Training states, each with one thing wrong."""
    content = checkpoint.read_bytes()
    (out / "cut.safetensors").write_bytes(content[:-1000])
    length = int.from_bytes(content[:8], "little")
    header, old = content[8 : 8 + length], rb"\"world_size\": 1,"
    assert header.count(old) == 1
    other = header.replace(old, rb"\"world_size\": 8,")
    (out / "world.safetensors").write_bytes(content[:8] + other + content[8 + length :])


def calls(package, data, out, checkpoint):
    """{name: arguments}"""
    side = package.partition("_")[0]
    teach = ("--model", "pit_ti_distilled", "--distillation-type", "hard", "--teacher", f"tests.models.teacher_{side}:")
    weights = ("--teacher-weights", str(out / "teacher.safetensors"))
    resume, here = ("--resume", str(checkpoint)), ("--data", str(data))
    failing = (*teach[:-1], f"{teach[-1]}failing", "--distillation-type", "soft")
    return {
        "learns": (
            *(*here, *RUN, *PLAIN, "--epochs", "8", "--lr", "0.05", "--warmup-epochs", "0", "--drop-path", "0"),
            *("--no-ema", "--drop", "0", "--accumulation", "2"),
        ),
        "teacher": (*here, *RUN, *teach[:-1], f"{teach[-1]}small", *weights, "--epochs", "1"),
        "teacher_nan": (*here, *RUN, *failing),
        "teacher_unknown": (*here, *RUN, *teach[:-1], f"{teach[-1]}nobody"),
        "teacher_unfit": (*here, *RUN, *teach[:-1], f"{package}.pit:pit_ti", *weights),
        "teacher_alone": (*here, *RUN, "--teacher", f"{package}.pit:pit_ti"),
        "teacher_plain_model": (*here, *RUN, *failing, "--model", "pit_ti"),
        "new_head": (
            *(*here, *RUN, "--epochs", "1", "--pretrained", str(checkpoint)),
            *("--pretrained-classes", "2", "--num-classes", "3"),
        ),
        "eval": (*here, "--eval", "--pretrained", str(checkpoint), "--image-size", "32", "--workers", "1"),
        "eval_other_model": (*here, "--eval", "--pretrained", str(checkpoint), "--model", "pit_xs", *RUN[:2]),
        "eval_without_weights": (*here, "--eval"),
        "resume_other_model": (*here, *RUN, *resume, "--model", "pit_xs"),
        "resume_other_lr": (*here, *RUN, *resume, "--lr", "0.001"),
        "resume_world": (*here, *RUN, "--resume", str(out / "world.safetensors")),
        "resume_cut": (*here, *RUN, "--resume", str(out / "cut.safetensors")),
        "resume_missing": (*here, *RUN, "--resume", str(out / "none.safetensors")),
        "label_outside": (*here, *RUN, "--num-classes", "1"),
        "odd_batch": (*here, *RUN, "--batch-size", "3"),
        "large_batch": (*here, *RUN, "--batch-size", "64"),
        "augmentation": (*here, *RUN, "--aa", "augmix"),
        "divergence": (*here, *RUN, "--lr", "1e30", "--warmup-epochs", "0"),
        **{name: ("--data", str(out / name), *RUN) for name in ("empty_class", "other_classes", "no_val", "loose")},
        "bad_image": ("--data", str(out / "bad_image"), *RUN, "--workers", "1"),
        "no_data": ("--data", str(out / "nowhere"), *RUN),
    }


def call(main, arguments):
    """(exit code, standard output, standard error)"""
    printed, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(errors):
        try:
            code = main([*arguments])
        except SystemExit as end:  # from the parser
            code = end.code
    return {"code": code, "out": printed.getvalue(), "error": errors.getvalue()}


def spoiled(module, out, arguments):
    """One sample's logits made NaN in the second update: which file is named?"""
    training = module.Training(module.parse_arguments([*arguments, "--output", str(out)]))
    forward, batches, serve = training.model.forward, [], module.load_batches
    served = training.training_batches(0)

    def wrong(x):
        batches.append(1)
        logits = forward(x)
        if len(batches) == 2:
            logits[3, 0] = float("nan")
        return logits

    training.model.forward = wrong
    try:
        training.run()
    except module.TrainingFault as fault:
        return {"error": str(fault), "file": str(training.images[served[1][3]][0])}
    finally:
        assert module.load_batches is serve


if __name__ == "__main__":
    package, (data, out, checkpoint) = sys.argv[1], map(Path, sys.argv[2:])
    module = importlib.import_module(f"{package}.main")
    teacher_weights(out / "teacher.safetensors")
    folders(data, out)
    states(checkpoint, out)
    answers = {}
    for name, arguments in calls(package, data, out, checkpoint).items():
        output = out / f"output-{name}"
        where = () if "--eval" in arguments else ("--output", str(output))
        answers[name] = call(module.main, (*arguments, *where))
        answers[name]["files"] = sorted(path.name for path in output.iterdir()) if output.exists() else []
    answers["spoiled"] = spoiled(module, out / "output-spoiled", ("--data", str(data), *RUN))
    (out / "answers.json").write_text(json.dumps(answers))
    other = {"torch_ref": "paddle", "paddle_impl": "torch"}[package]
    assert other not in sys.modules, f"{package} imported {other}"
