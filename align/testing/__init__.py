"""Alignment in pytest: the fixture `assert_aligned`, and `aligned(...)`, whose rows are tests of their own.

Both come with the installed package: `align.testing.plugin` is a pytest plugin. Nothing here imports numpy or a
framework; that is left to the first pair that runs.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Builder = str | Callable[..., Any]


@dataclass(frozen=True)
class Pair:
    """What is compared, and by which rules; the fields are the arguments of `aligned`."""

    reference: Builder | None = None
    port: Builder | None = None
    inputs: Any = ()
    case: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


def aligned(
    reference: Builder | None = None,
    port: Builder | None = None,
    inputs: str | Mapping[str, Any] | Sequence[Any] = (),
    *,
    case: str | None = None,
    steps: Sequence[str] | None = None,
    dtype: str = "float32",
    seed: int | None = None,
    mapping: str | Path | Mapping[str, str] | None = None,
    waivers: str | Path | None = None,
    deviations: str | Path | None = None,
    one_process: bool | None = None,
) -> Pair:
    """A pair as a value of a test module, `test_net = aligned(...)`: each compared tensor becomes a test.

    The arguments are those of `align.testing.harness.Harness.run`. The pair runs once, while tests are collected.
    """
    settings = {"steps": steps, "dtype": dtype, "seed": seed, "mapping": mapping, "waivers": waivers}
    settings |= {"deviations": deviations, "one_process": one_process}
    return Pair(reference, port, inputs, case, settings)
