"""`init`: what each side's own initialisation gives, parameter by parameter, pooled over models of several seeds.

No plan decides these numbers: each framework draws its own, under seeds that follow from the case's, and what is
compared is their distribution (`align/compare/distributions.py`).
"""

import zlib

import numpy as np

from align.record.builders import resolve
from align.record.context import Context

SAMPLE = 16384  # values kept of a parameter, all models together: a range that is 0.5 % off shows (docs/verdict.md)
MODELS = (4, 64)  # at least and at most so many models: a bias of 16 then has 1,024 values
VALUES = 100_000_000  # drawn on a side, about: more models of a small network, fewer of a large one
LEADING = 64  # values of a parameter by which its draws are told apart


def record(context: Context) -> None:
    side, case = context.side, context.case
    if context.dtype != "float64":
        side.set_precision("float32")  # what training in half precision starts from, too; half would add its own grid
    builder = resolve(case.builder(side.name))
    pools: dict[str, list[np.ndarray]] = {}
    orders: dict[str, list[bytes]] = {}
    models, built = MODELS[1], 0
    while built < models:
        state = side.state(side.build(builder, case.build, seed=case.seed + built))
        drawn = {
            context.reference_names.get(name, name): array for name, (kind, array) in state.items() if kind != "buffer"
        }
        if built == 0:
            total = sum(array.size for array in drawn.values())
            models = min(max(VALUES // max(total, 1), MODELS[0]), MODELS[1])
        for name, array in drawn.items():
            flat = array.reshape(-1)
            pools.setdefault(name, []).append(flat[_places(name, flat.size, models)])
            orders.setdefault(name, []).append(_order(flat))
        built += 1
        context.progress(built, models)
    for name, pool in pools.items():
        for statistic, value in statistics(np.concatenate(pool)).items():
            context.emit(f"{name}/{statistic}", value, "statistic", headline=statistic != "sample")
        context.emit(f"{name}/distinct", np.array(_distinct(name, orders)), "statistic", headline=True)


def statistics(values: np.ndarray) -> dict[str, np.ndarray]:
    """Of values (n,): `bounds`, the ends; `mean` and `std`, float64 without axes; `sample`, all of them, ascending."""
    sample = np.sort(values)
    wide = sample.astype(np.float64)
    mean, std = (np.array(statistic(wide)) for statistic in (np.mean, np.std))
    return {"bounds": sample[[0, -1]], "mean": mean, "std": std, "sample": sample}


def _places(name: str, size: int, models: int) -> np.ndarray:
    """Which values of a parameter are kept: the same on both sides and in every model, ascending."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return np.sort(rng.choice(size, min(size, max(SAMPLE // models, 1)), replace=False, shuffle=False))


def _order(flat: np.ndarray) -> bytes:
    """The ranks of the first values: equal for equal draws, whatever they were scaled to; empty for a constant."""
    leading = flat[:LEADING]
    return b"" if len(leading) < LEADING // 4 or np.ptp(leading) == 0 else np.argsort(leading).tobytes()


def _distinct(name: str, orders: dict[str, list[bytes]]) -> tuple[int, int]:
    """How many of its draws differ, over the models; and how many parameters, itself too, have the first one."""
    own = orders[name]
    sharing = sum(other[0] == own[0] for other in orders.values()) if own[0] else 1
    return len(set(own)), sharing
