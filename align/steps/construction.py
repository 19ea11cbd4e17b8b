"""Not a step of its own: the case's model built once more, for who traces the lines of what its modules hold."""

from align.record.context import Context
from align.record.settings import held, settings


def record(context: Context) -> None:
    """A row `<module>.<attribute>` for every floating attribute, and for every tensor beside the parameters.

    With the rates of `train_align`, if there are any.
    """
    modules = context.side.modules(context.built(changes=context.case.rates))
    for path, told in settings(modules).items():
        for name, value in told["attributes"].items():
            if type(value) is float:
                context.emit(row(path, name), value, "statistic")
    for path, tensors in held(context.side, modules).items():
        for name, tensor in tensors.items():
            context.emit(row(path, name), tensor, "buffer")


def row(module: str, attribute: str) -> str:
    return f"{module}.{attribute}"
