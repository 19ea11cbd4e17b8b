"""What is aligned: a reference, a port, and everything both are fed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from align.errors import UsageError

STEPS = ("data", "weights", "init", "forward", "metric", "loss", "bp_align", "optim", "train_align")

ALONE = ("forward", "bp_align")  # what can be asked of two models without a recipe


# Steps of the port that read what the reference recorded for another step.
NEEDS = {"metric": "forward"}


@dataclass(frozen=True)
class Input:
    """One input of the model: its shape with the batch first, and what it is filled with.

    `photographs`: real images, cropped and normalised, the last one nearly constant (a low-variance row shows
    epsilons). `normal`: standard-normal values, the last sample nearly constant. `integers`: 0 to `high` - 1.
    `flags`: both truth values in every row. `file`: the array of the `.npy` file at the path `file`.

    `argument` is how the model takes it: empty for the next positional one, else a keyword; what follows a dot is a key
    of a dictionary (`batch.ids`; `0.ids` in the first positional argument).
    """

    name: str
    shape: tuple[int, ...]
    fill: str = "photographs"
    dtype: str = "float32"
    high: int = 0
    argument: str = ""
    file: str = ""


@dataclass(frozen=True)
class Loss:
    """The training criterion: label smoothing, and DeiT's distillation (`none`, `soft`, `hard`)."""

    smoothing: float = 0.1
    distillation: str = "none"
    alpha: float = 0.5
    tau: float = 3.0


@dataclass(frozen=True)
class Training:
    """The run of `train_align`: a small model of the same family on scikit-learn's 1,797 digits."""

    reference: str
    port: str
    build: Mapping[str, Any]
    image_size: int = 64
    iterations: int = 100
    batch: int = 32
    accumulation: int = 1
    clip_norm: float | None = None
    optimizer: Mapping[str, Any] = field(default_factory=lambda: {"lr": 2e-3, "weight_decay": 0.05, "eps": 1e-8})
    warmup_iterations: int = 10
    warmup_lr: float = 1e-6
    min_lr: float = 1e-5


@dataclass(frozen=True)
class Case:
    """One pair to align. `reference` and `port` are paths as `align.record.builders` reads them, called with `build`.

    With a `loss`, the package of each path (`torch_ref`, `paddle_impl`) must offer those of the twins `data losses
    metrics optim train weights ema` that the steps call; `reference_package` and `port_package` name others.
    Without one the models stand alone: the steps are `forward` and `bp_align`, and backward begins at fixed cotangents.
    """

    name: str  # of a folder, too
    reference: str
    port: str
    build: Mapping[str, Any] = field(default_factory=dict)
    inputs: tuple[Input, ...] = ()
    classes: int = 0
    port_names: str | None = None  # import path of a function from the reference's parameter names to the port's
    mapping: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # a user's, see `align.mapping`
    reference_package: str | None = None  # where the reference's twins are, if not in the package of its builder
    port_package: str | None = None  # likewise of the port
    loss: Loss | None = None
    probes: tuple[str, ...] = ()  # names of `align.probe` that both must meet, and whose values are results
    features: str | None = None  # a method of both models whose result is compared beside the model's own
    pair: bool = False  # whether the port's parameters are found by `align.plan.parameters`, not by name alone
    optimizer: Mapping[str, Any] = field(default_factory=lambda: {"lr": 5e-4, "weight_decay": 0.05, "eps": 1e-8})
    iterations: int = 5
    clip_norm: float | None = None
    training: Training | None = None
    rates: Mapping[str, Any] = field(default_factory=dict)  # arguments that switch dropout on, for train_align
    steps: tuple[str, ...] = STEPS
    seed: int = 20210330  # the day PiT was submitted to arXiv (2103.16302); any other would do
    summary: str = ""

    def __post_init__(self) -> None:
        if self.name in ("", ".", "..") or set(self.name) & {"/", "\\", "\0"}:
            raise UsageError(f"a case called {self.name!r}: it is the name of a folder too; give a plain one")
        if self.seed < 0:
            raise UsageError(f"case {self.name}: the seed is {self.seed}; give 0 or more")

    def builder(self, side: str) -> str:
        return self.reference if side == "torch" else self.port

    def package(self, side: str) -> str:
        told = self.reference_package if side == "torch" else self.port_package
        return told or package_of(self.builder(side))

    @property
    def criterion(self) -> Loss:
        """The loss of a case with a recipe; UsageError where the models stand alone."""
        if self.loss is None:
            raise UsageError(f"case {self.name}: has no loss; models alone have the steps {' and '.join(ALONE)}")
        return self.loss

    @property
    def alone(self) -> bool:
        """Whether there is no recipe: two models, and nothing around them."""
        return self.loss is None

    @property
    def followed(self) -> tuple[str, ...]:
        """Steps that draw: as the port records them, it reads how the reference's values lay under its masks."""
        return ALONE if self.alone else ("train_align",)


def package_of(path: str) -> str:
    """The top package of an import path `package.module:name(...)`, or the name that a file `folder/port.py` gets."""
    module = path.partition(":")[0]
    return Path(module).stem if module.endswith(".py") else module.partition(".")[0]


def from_json(fields: Mapping[str, Any]) -> Case:
    """The case whose `dataclasses.asdict` went through JSON, where tuples become lists."""
    inputs = tuple(Input(**{**item, "shape": tuple(item["shape"])}) for item in fields["inputs"])
    training = Training(**fields["training"]) if fields["training"] else None
    loss = Loss(**fields["loss"]) if fields["loss"] else None
    nested = {"inputs": inputs, "training": training, "loss": loss}
    nested |= {name: tuple(fields[name]) for name in ("steps", "probes") if name in fields}
    return Case(**{**fields, **nested})
