"""The DeiT/PiT training recipe as command-line arguments, and what is built from them.

The defaults are those of facebookresearch/deit `main.py`, with which PiT was trained (arXiv 2103.16302, section 4.1).
Licence: Apache-2.0
"""

import argparse
import importlib
import os
from pathlib import Path

from torch import nn

from torch_ref import pit
from torch_ref.augment import RAND_AUGMENT
from torch_ref.losses import DistillationLoss, LabelSmoothingCrossEntropy, SoftTargetCrossEntropy, cross_entropy
from torch_ref.weights import WeightsError, load_reference_state, read_weights

# What may change when a run is resumed; all other arguments are the run.
FREE = (
    "data",
    "output",
    "pretrained",
    "pretrained_classes",
    "resume",
    "eval",
    "device",
    "workers",
    "teacher",
    "teacher_weights",
)


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The arguments of `python -m torch_ref.train`; what contradicts itself ends the program with exit code 2."""
    parser = argparse.ArgumentParser(
        prog="python -m torch_ref.train",
        usage="%(prog)s --data DIR {--output DIR | --eval --pretrained FILE} [option ...]",
        description="Train or evaluate a PiT on a folder of images, by DeiT's recipe.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    flag = argparse.BooleanOptionalAction

    what = parser.add_argument_group("what")
    what.add_argument("--data", type=Path, required=True, help="folder with train/CLASS/IMAGE and val/CLASS/IMAGE")
    what.add_argument("--output", type=Path, help="folder for last.safetensors, best.safetensors and log.jsonl")
    what.add_argument("--model", choices=sorted(pit.VARIANTS), default="pit_ti", help="variant")
    what.add_argument("--image-size", type=int, default=224, help="height and width in pixels")
    what.add_argument("--num-classes", type=int, help="classes of the model; the class folders if None")
    what.add_argument(
        "--pretrained",
        nargs="?",
        const=True,
        default=False,
        metavar="FILE",
        help="weights to start from or to evaluate; without FILE the published ones, from the hub",
    )
    what.add_argument("--pretrained-classes", type=int, help="classes of these weights, if a new head is to be put on")
    what.add_argument("--resume", type=Path, metavar="FILE", help="go on from this checkpoint, of either framework")
    what.add_argument("--eval", action="store_true", help="only evaluate --pretrained on val/")
    what.add_argument("--device", choices=["cpu", "gpu"], help="if None, gpu where there is one")
    what.add_argument("--workers", type=int, default=min(10, os.cpu_count() or 1), help="processes that read images")
    what.add_argument("--seed", type=int, default=0, help="of every random choice")

    how = parser.add_argument_group("optimisation")
    how.add_argument("--epochs", type=int, default=300, help="of the whole run, resumed or not")
    how.add_argument("--batch-size", type=int, default=64, help="images of one forward pass")
    how.add_argument("--accumulation", type=int, default=1, help="batches of one update")
    how.add_argument("--lr", type=float, default=5e-4, help="peak learning rate for 512 images an update")
    how.add_argument("--weight-decay", type=float, default=0.05, help="of what is decayed")
    how.add_argument("--warmup-epochs", type=int, default=5, help="epochs of linear warm-up")
    how.add_argument("--warmup-lr", type=float, default=1e-6, help="learning rate of the first update")
    how.add_argument("--min-lr", type=float, default=1e-5, help="learning rate at the end of the cosine")
    how.add_argument("--clip-grad", type=float, help="greatest global norm of the gradient; if None, no clipping")
    how.add_argument("--ema", action=flag, default=True, help="average the weights as well")
    how.add_argument("--ema-decay", type=float, default=0.99996, help="what an update leaves of the average")

    noise = parser.add_argument_group("regularisation and augmentation; 0 switches each off")
    noise.add_argument("--drop", type=float, default=0.0, help="dropout rate")
    noise.add_argument("--drop-path", type=float, default=0.1, help="stochastic depth rate of the last blocks")
    noise.add_argument("--smoothing", type=float, default=0.1, help="label smoothing")
    noise.add_argument("--mixup", type=float, default=0.8, help="alpha of mixup")
    noise.add_argument("--cutmix", type=float, default=1.0, help="alpha of CutMix")
    noise.add_argument("--mixup-prob", type=float, default=1.0, help="of mixing a batch at all")
    noise.add_argument("--mixup-switch-prob", type=float, default=0.5, help="of CutMix where mixup is possible too")
    noise.add_argument("--aa", default=RAND_AUGMENT, help="RandAugment's configuration, or none")
    noise.add_argument("--color-jitter", type=float, default=0.3, help="only without --aa")
    noise.add_argument("--reprob", type=float, default=0.25, help="probability of random erasing")
    noise.add_argument("--repeated-aug", action=flag, default=True, help="show each chosen image three times an epoch")

    teacher = parser.add_argument_group("distillation")
    teacher.add_argument("--distillation-type", choices=["none", "soft", "hard"], default="none", help="kind")
    teacher.add_argument("--distillation-alpha", type=float, default=0.5, help="weight of the teacher's part")
    teacher.add_argument("--distillation-tau", type=float, default=1.0, help="temperature of soft distillation")
    teacher.add_argument("--teacher", metavar="MODULE:BUILDER", help="called with num_classes; gives images -> logits")
    teacher.add_argument("--teacher-weights", type=Path, metavar="FILE", help="loaded into the teacher")

    args = parser.parse_args(argv)
    for fault in _contradictions(args):
        parser.error(fault)
    return args


def _contradictions(args):
    """What is wrong with the arguments, in words."""
    if args.eval:
        if not args.pretrained:
            yield "--eval needs --pretrained FILE"
        return
    if args.output is None:
        yield "training needs --output DIR"
    for name in ("epochs", "batch_size", "accumulation"):
        if getattr(args, name) < 1:
            yield f"--{name.replace('_', '-')} {getattr(args, name)}: at least 1"
    for name in ("seed", "workers", "warmup_epochs"):
        if getattr(args, name) < 0:
            yield f"--{name.replace('_', '-')} {getattr(args, name)}: at least 0"
    if args.batch_size % 2 and (args.mixup > 0 or args.cutmix > 0):
        yield f"--batch-size {args.batch_size}: mixup pairs images, so an even number, or --mixup 0 --cutmix 0"
    if (args.distillation_type == "none") != (args.teacher is None):
        yield "--teacher and --distillation-type soft or hard go together"
    if args.distillation_type != "none" and not args.model.endswith("_distilled"):
        yield f"--distillation-type {args.distillation_type} needs a distilled model, such as {args.model}_distilled"
    if args.teacher is not None and args.teacher.count(":") != 1:
        yield f"--teacher {args.teacher}: give MODULE:BUILDER, such as torch_ref.pit:pit_s"
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size != 1:
        yield f"WORLD_SIZE is {world_size}, but this program is one process; --accumulation enlarges updates"


def run_facts(args: argparse.Namespace, images: int) -> dict:
    """What identifies a training run on `images` images, in values that JSON can hold."""
    settings = {name: value for name, value in vars(args).items() if name not in FREE}
    return settings | {"images": images, "world_size": 1}


def peak_lr(args: argparse.Namespace) -> float:
    """DeiT's rule: the learning rate grows with the images of one update, from `--lr` at 512."""
    return args.lr * args.batch_size * args.accumulation / 512


def build_model(args: argparse.Namespace) -> nn.Module:
    """The variant with the recipe's rates, and the weights to start from. Raises WeightsError."""
    builder = getattr(pit, args.model)
    settings = {"image_size": args.image_size, "drop_rate": args.drop, "drop_path_rate": args.drop_path}
    classes = args.pretrained_classes or args.num_classes
    model = builder(pretrained=args.pretrained, num_classes=classes, **settings)
    if classes != args.num_classes:
        model.reset_classifier(args.num_classes)
    return model


def build_criterion(args: argparse.Namespace, device: str) -> DistillationLoss:
    """Cross entropy with mixed targets, smoothed or plain labels, and the teacher's part if there is one."""
    if args.mixup > 0 or args.cutmix > 0:
        base = SoftTargetCrossEntropy()
    else:
        base = LabelSmoothingCrossEntropy(args.smoothing) if args.smoothing > 0 else cross_entropy
    teacher = build_teacher(args, device) if args.teacher else None
    return DistillationLoss(
        base, teacher, args.distillation_type, alpha=args.distillation_alpha, tau=args.distillation_tau
    )


def build_teacher(args: argparse.Namespace, device: str):
    """What `--teacher` builds, in evaluation mode, with its weights. Raises ValueError, also for unfit weights."""
    module, _, name = args.teacher.partition(":")
    try:
        builder = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"--teacher {args.teacher}: {error}; give MODULE:BUILDER, importable from here") from error
    teacher = builder(num_classes=args.num_classes)
    if args.teacher_weights is not None:
        try:
            load_reference_state(teacher, read_weights(args.teacher_weights, teacher))
        except WeightsError as error:
            raise WeightsError(f"--teacher-weights {args.teacher_weights}: {error}") from error
    if isinstance(teacher, nn.Module):
        teacher.eval().to(device)
    return teacher
