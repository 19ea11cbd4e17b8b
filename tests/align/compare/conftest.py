"""Small recordings written with numpy, as two sides would have left them, to be judged."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from align.compare.runs import Runs, compare_runs
from align.compare.waivers import Exceptions
from align.record import manifest
from align.record.noise import NoiseMeter
from align.record.store import Store, StoreWriter

SOURCES = {"case": "toy", "seed": 1, "images": "a", "weights": "probe weights", "plan": "p"}
ENVIRONMENT = {"versions": {"torch": "2", "paddle": "3"}, "devices": {"used": "cpu"}}


@dataclass
class Tensor:
    """What one side recorded under a name: an array with its kind, or the name of another that it is."""

    array: np.ndarray | None
    kind: str = "output"
    same_as: str | None = None
    facts: dict[str, Any] | None = None


@dataclass
class Bench:
    """Both sides of one step, in the working type and in float64; `verdict` writes them and judges.

    `truth` is the reference's float64 run. What the others hold follows from it, each with rounding of its own, unless
    it is given: `port["x"] = array`, or None for a tensor that is not there.
    """

    folder: Path
    step: str = "forward"
    dtype: str = "float32"
    truth: dict[str, Any] = field(default_factory=dict)
    reference: dict[str, Any] = field(default_factory=dict)
    port: dict[str, Any] = field(default_factory=dict)
    port_twin: dict[str, Any] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    sources: dict[str, dict[str, Any]] = field(default_factory=dict)
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    twin_failures: dict[str, str] = field(default_factory=dict)
    noise: bool = True
    twins: bool = True

    def rounded(self, name: str, seed: int, dtype: str | None = None, ulps: float = 4.0) -> np.ndarray:
        """The truth as a run in a dtype would have it: some ulp off, differently for every seed."""
        truth, dtype = self.truth[name], dtype or self.dtype
        if truth.dtype.kind != "f":
            return truth
        rng = np.random.default_rng([seed, len(name)])
        with np.errstate(over="ignore", invalid="ignore"):
            return (truth * (1 + ulps * np.finfo(dtype).eps * rng.uniform(-1, 1, truth.shape))).astype(dtype)

    def tensors(self, given: dict[str, Any], seed: int, dtype: str) -> dict[str, Tensor]:
        made = {name: self.rounded(name, seed, dtype) for name in self.truth}
        made = {name: value for name, value in {**made, **given}.items() if value is not None}
        return {
            name: value if isinstance(value, Tensor) else self.tensor(name, np.asarray(value))
            for name, value in made.items()
        }

    def tensor(self, name: str, array: np.ndarray) -> Tensor:
        return Tensor(array, self.kinds.get(name, "output"), facts=self.facts.get(name))

    def record(self, side: str, dtype: str, tensors: dict[str, Tensor], failures=None) -> manifest.Recording:
        folder = manifest.start(self.folder, f"{side}-cpu-{dtype}")
        with StoreWriter(folder, self.step) as writer:
            fill(writer, tensors)
        files = dict(writer.hashes)
        if side == "torch" and dtype == self.dtype and self.noise:
            files |= self.measure(folder)
        told = manifest.Manifest(
            "toy",
            side,
            "cpu",
            dtype,
            "p",
            sources={**SOURCES, **self.sources.get(f"{side}-{dtype}", {})},
            steps={self.step: 0.5},
            failures=failures or {},
            environment=ENVIRONMENT,
            files=files,
        )
        return manifest.Recording(manifest.finish(folder, told))

    def measure(self, folder: Path) -> dict[str, str]:
        """The reference's perturbed runs, as the worker writes them down."""
        with StoreWriter(self.folder, self.step) as writer:
            fill(writer, {name: Tensor(array) for name, array in self.truth.items()})
        table: dict[str, dict[str, list]] = {}
        for seed, dtype in ((11, self.dtype), (12, self.dtype), (13, self.dtype), (14, "float64")):
            meter = NoiseMeter(Store(self.folder, self.step))
            fill(meter, self.tensors({}, seed, dtype))
            for name, error in meter.errors.items():
                table.setdefault(name, {}).setdefault(dtype, []).append(error)
        path = folder / f"{self.step}{manifest.NOISE}"
        manifest.write_json(path, table)
        return {}

    def runs(self) -> Runs:
        reference = self.record("torch", self.dtype, self.tensors(self.reference, 1, self.dtype))
        port = self.record("paddle", self.dtype, self.tensors(self.port, 2, self.dtype), self.failures)
        if self.dtype == "float64" or not self.twins:
            return Runs(reference, port, None, None)
        twin = self.record("torch", "float64", {name: self.tensor(name, array) for name, array in self.truth.items()})
        ours = {} if self.twin_failures else self.tensors(self.port_twin, 3, "float64")
        return Runs(reference, port, twin, self.record("paddle", "float64", ours, self.twin_failures))

    def verdict(self, exceptions: Exceptions | None = None, fixed: float | None = None):
        return compare_runs(self.runs(), exceptions or Exceptions(), fixed)

    def row(self, name: str = "x", **options):
        """The row of one tensor."""
        (row,) = (row for row in self.verdict(**options).rows if row.name == name)
        return row


def fill(sink, tensors: dict[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if tensor.same_as:
            sink.alias(name, tensor.same_as, tensor.kind)
        else:
            sink.add(name, tensor.array, tensor.kind, facts=tensor.facts)


def normal(*shape: int, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    return scale * np.random.default_rng(seed).standard_normal(shape)


@pytest.fixture
def bench(tmp_path):
    """A correct pair that recorded one tensor `x` of 1,000 normal values."""
    return Bench(tmp_path, truth={"x": normal(1000)})
