"""`python -m torch_ref.train`: train a PiT on a folder of images by DeiT's recipe, or evaluate weights on it.

Origin: written for this project; what an epoch does follows facebookresearch/deit `engine.py` and `main.py`.
Licence: Apache-2.0
"""

import json
import math
import os
import shutil
import sys
import time

import torch

from torch_ref.augment import build_mixup, train_transform
from torch_ref.checkpoint import WeightsError
from torch_ref.data import eval_transform, list_images
from torch_ref.ema import build_ema
from torch_ref.loader import FAILED, EpochBatches, load_batches, seed_generators
from torch_ref.optim import build_optimizer, build_schedule
from torch_ref.recipe import build_criterion, build_model, parse_arguments, peak_lr, run_facts
from torch_ref.resume import load_training_state, read_training_facts, save_training_state
from torch_ref.sampler import RepeatAugSampler, train_batches
from torch_ref.train import TrainingFault, evaluate, fit

# Streams of random numbers: what a run draws from one does not depend on another.
WEIGHTS, TRANSFORMS, MODEL = range(3)


def main(argv: list[str] | None = None) -> int:
    """Exit code: 0 done, 1 not finite, 2 unusable input, 3 a file that cannot be written, 130 interrupted.

    Each failure is one line on standard error, and leaves the last checkpoint as it was.
    """
    args = parse_arguments(argv)
    try:
        if args.eval:
            evaluate_weights(args)
        else:
            Training(args).run()
    except TrainingFault as fault:
        return _fail(1, fault)
    except ValueError as error:
        return _fail(2, error)
    except OSError as error:
        return _fail(3, f"{error.filename}: {error.strerror}" if error.filename else error)
    except KeyboardInterrupt:
        return _fail(130, "interrupted; the last checkpoint is whole")
    return 0


def _fail(code, error):
    print(f"error: {error}", file=sys.stderr)
    return code


def read_split(args, split):
    """[(path, class index)] of `--data`/train or val, and the names of its classes."""
    folder = args.data / split
    images = list_images(folder)
    if images[0][1] == FAILED:
        raise ValueError(f"{folder} holds images but no class folders; the path must be {folder}/CLASS/IMAGE")
    classes = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if args.num_classes is None:
        args.num_classes = len(classes)
    if len(classes) > args.num_classes:
        raise ValueError(
            f"{folder / classes[args.num_classes]}: class {args.num_classes} is outside the classes "
            f"0..{args.num_classes - 1} of --num-classes {args.num_classes}"
        )
    return images, classes


def evaluation_batches(args, images, device):
    """All images in order, in batches of `--batch-size`, by the evaluation transform: shorter side size / 0.9."""
    transform = eval_transform(args.image_size, resize=math.floor(args.image_size / 0.9))
    order = list(range(len(images)))
    batches = [order[start : start + args.batch_size] for start in range(0, len(order), args.batch_size)]
    return load_batches(EpochBatches(images, batches, transform), args.workers, device)


def evaluate_weights(args):
    """Print top-1 and top-5 of the pretrained weights on val/."""
    device = choose_device(args.device)
    images, _ = read_split(args, "val")
    model = build_model(args).to(device)
    result = evaluate(model, evaluation_batches(args, images, device))
    print(f"{args.model}: {_in_words(result)}, {result['samples']} images of {args.data / 'val'}")


def _in_words(result):
    return f"top-1 {100 * result['acc1']:.3f} %, top-5 {100 * result['acc5']:.3f} %, loss {result['loss']:.4f}"


class Training:
    """One training run, from its arguments to its last checkpoint."""

    def __init__(self, args):
        self.args = args
        self.device = choose_device(args.device)
        self.images, classes = read_split(args, "train")
        self.val_images, val_classes = read_split(args, "val")
        if classes != val_classes:
            odd = sorted(set(classes) ^ set(val_classes))
            raise ValueError(
                f"{args.data}: train and val have other classes, so that their numbers differ: {odd[0]} is in one only"
            )
        self.batches_per_epoch = len(self.training_batches(0))
        self.facts = run_facts(args, len(self.images))
        if args.resume is not None:
            self.check_resume()
        elif (args.output / "last.safetensors").exists():
            raise ValueError(
                f"{args.output} holds a run already: go on with --resume {args.output / 'last.safetensors'}, "
                "or choose another --output"
            )
        self.build()

    def check_resume(self):
        """Raise ValueError unless the checkpoint was made by this same run."""
        saved = read_training_facts(self.args.resume)
        for name, value in self.facts.items():
            if saved.get(name) != value:
                there = f"{name.replace('_', ' ')} was {saved.get(name)} there and is {value} here"
                raise ValueError(f"{self.args.resume}: made by another run: {there}")

    def build(self):
        """Everything that has a state, new or from the checkpoint."""
        args = self.args
        self.transform = train_transform(
            args.image_size,
            auto_augment=None if args.aa in ("none", "0", "") else args.aa,
            color_jitter=args.color_jitter,
            re_prob=args.reprob,
        )
        seed_generators(args.seed, WEIGHTS)
        self.model = build_model(args).to(self.device)
        self.ema = build_ema(self.model, args.ema_decay) if args.ema else None
        self.mixup = build_mixup(
            args.num_classes, args.mixup, args.cutmix, args.mixup_prob, args.mixup_switch_prob, args.smoothing
        )
        self.criterion = build_criterion(args, self.device)
        updates = math.ceil(self.batches_per_epoch / args.accumulation)  # in one epoch
        self.optimizer = build_optimizer(self.model, "adamw", peak_lr(args), args.weight_decay)
        self.schedule = build_schedule(
            self.optimizer,
            peak_lr(args),
            iterations=args.epochs * updates,
            warmup_iterations=args.warmup_epochs * updates,
            warmup_lr=args.warmup_lr,
            min_lr=args.min_lr,
        )
        self.epoch, self.best = 0, None
        if args.resume is not None:
            state = load_training_state(args.resume, self.model, self.optimizer, self.schedule, self.ema)
            self.epoch, self.best = state["epoch"], state["best"]

    def run(self):
        """Train, evaluate and save, epoch by epoch."""
        args = self.args
        args.output.mkdir(parents=True, exist_ok=True)
        self.log = Log(args.output / "log.jsonl", self.schedule.iteration)
        at = f", after epoch {self.epoch}" if self.epoch else ""
        print(f"{args.model}: {len(self.images)} images, {args.num_classes} classes, on {self.device}{at}", flush=True)
        while self.epoch < args.epochs:
            started, self.losses = time.monotonic(), []
            self.train_epoch()
            result = evaluate(self.model, self.evaluation_batches())
            line = {"epoch": self.epoch, "iteration": self.schedule.iteration, **result}
            line["train_loss"] = sum(self.losses) / len(self.losses)
            if self.ema is not None:
                averaged = evaluate(self.ema.module, self.evaluation_batches())
                line |= {f"ema_{name}": averaged[name] for name in ("acc1", "acc5", "loss")}
            self.save(line)
            seconds = time.monotonic() - started
            self.log.write(line | {"seconds": seconds})
            print(f"epoch {self.epoch} of {args.epochs}: {_in_words(result)}, {seconds:.0f} s", flush=True)

    def training_batches(self, epoch):
        """The batches of one epoch as lists of indices into the images."""
        repeats = {"num_repeats": 3} if self.args.repeated_aug else {"num_repeats": 1, "selected_round": 0}
        sampler = RepeatAugSampler(self.images, **repeats)
        sampler.set_epoch(epoch)
        return list(train_batches(sampler, self.args.batch_size))

    def evaluation_batches(self):
        return evaluation_batches(self.args, self.val_images, self.device)

    def train_epoch(self):
        """All updates of the next epoch."""
        args = self.args
        key = (args.seed, TRANSFORMS, self.epoch)
        dataset = EpochBatches(self.images, self.training_batches(self.epoch), self.transform, key)
        served = 0

        def batches():
            nonlocal served
            for images, labels in load_batches(dataset, args.workers, self.device):
                served += 1
                # what mixup and the model draw depends on the place in the run, not on who made the batch
                seed_generators(args.seed, MODEL, self.epoch, served)
                yield self.mixup(images, labels) if self.mixup else (images, labels)

        try:
            fit(
                self.model,
                batches(),
                self.criterion,
                self.optimizer,
                self.schedule,
                args.clip_grad,
                args.accumulation,
                self.ema,
                self.on_iteration,
                start=self.schedule.iteration,
            )
        except TrainingFault as fault:
            first = (served - 1) // args.accumulation * args.accumulation  # batch of this update
            where = "" if fault.sample is None else f": {dataset.path(first + fault.micro_batch, fault.sample)}"
            kept = f"the last good checkpoint is {args.output / 'last.safetensors'}, of epoch {self.epoch}"
            raise TrainingFault(
                f"epoch {self.epoch + 1}: {fault}{where}; {kept if self.epoch else 'no epoch was finished'}",
                fault.micro_batch,
                fault.sample,
            ) from fault
        self.epoch += 1

    def on_iteration(self, iteration, record):
        self.losses.append(record["loss"])
        self.log.write({"iteration": iteration, **record})
        if sys.stderr.isatty():
            total = self.args.epochs * math.ceil(self.batches_per_epoch / self.args.accumulation)
            text = f"update {iteration + 1} of {total}: loss {record['loss']:.4f}, lr {record['lr']:.3e}"
            print(f"\r{text}", end="\n" if iteration + 1 == total else "", file=sys.stderr, flush=True)

    def save(self, line):
        """Replace the last checkpoint, and the best if top-1 is greater: the average's, if there is an average."""
        acc1 = line.get("ema_acc1", line["acc1"])
        better = self.best is None or acc1 > self.best
        self.best = acc1 if better else self.best
        facts = self.facts | {"epoch": self.epoch, "best": self.best}
        last, best = self.args.output / "last.safetensors", self.args.output / "best.safetensors"
        try:
            save_training_state(last, self.model, self.optimizer, self.schedule, self.ema, facts)
        except WeightsError as error:
            raise OSError(error) from error
        if better:
            aside = best.with_name(f".{best.name}.{os.getpid()}")
            shutil.copyfile(last, aside)
            os.replace(aside, best)


class Log:
    """JSON lines: {"iteration", "loss", "lr", "grad_norm"} for an update, and what `evaluate` gave for an epoch.

    What an earlier run wrote beyond `iteration` updates is dropped: it is done again.
    """

    def __init__(self, path, iteration):
        lines = path.read_text().splitlines() if path.exists() else []
        kept = [line for line in lines if _belongs(line, iteration)]
        self.path = path
        aside = path.with_name(f".{path.name}.{os.getpid()}")
        aside.write_text("".join(f"{line}\n" for line in kept))
        os.replace(aside, path)

    def write(self, line):
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")


def _belongs(line, iteration):
    """Whether a line of the log tells of the first `iteration` updates; not if it was cut off by a crash."""
    try:
        line = json.loads(line)
    except json.JSONDecodeError:
        return False
    return line["iteration"] < iteration + (
        "epoch" in line
    )  # updates count from 0, an epoch's line says how many are done


def choose_device(device):
    """The framework's name of `--device`, which is checked. Raises ValueError if there is no such device."""
    if device == "gpu" and not torch.cuda.is_available():
        raise ValueError("--device gpu: PyTorch sees no GPU; use --device cpu")
    return "cpu" if device == "cpu" or not torch.cuda.is_available() else "cuda"
