"""`weights`: names, shapes and values after the package's own loader, and what its files hold and give back."""

from pathlib import Path
from tempfile import TemporaryDirectory

from safetensors.numpy import load_file

from align.record.builders import resolve
from align.record.context import Context

NATIVE = {"torch": "weights.pth", "paddle": "weights.pdparams"}


def record(context: Context) -> None:
    side, case, weights = context.side, context.case, context.package("weights")
    if context.dtype != "float64":
        side.set_precision("float32")  # what files hold, and what half precision is rounded from
    model = side.build(resolve(case.builder(side.name)), case.build)
    state = context.arrays("weights/")
    weights.load_reference_state(model, state)
    for name, (kind, array) in side.state(model).items():
        context.emit(name, array, kind, headline=True)
    # A converter is wrong in its names as often as in its values, and a mistake made both ways cancels out: the keys of
    # a file stand beside what is read from it again. Framework's own file: there a layout is turned, both ways.
    with TemporaryDirectory() as folder:
        exchanged, native = Path(folder, "weights.safetensors"), Path(folder, NATIVE[side.name])
        weights.write_weights(exchanged, state, model, keys="timm")
        weights.write_weights(native, state, model)
        for what, arrays in (
            ("file", load_file(exchanged)),
            ("read", weights.read_weights(exchanged, model)),
            ("native", weights.read_weights(native, model)),
        ):
            for name, array in arrays.items():
                context.emit(f"{what}/{name}", array, "parameter")
