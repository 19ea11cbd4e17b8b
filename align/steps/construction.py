"""Not a step of its own: the case's model built once more, for who traces the lines of what its modules are set to."""

from align.record.context import Context
from align.record.settings import settings


def record(context: Context) -> None:
    """A row `<module>.<attribute>` for every floating attribute; with the rates of `train_align`, if there are any."""
    modules = context.side.modules(context.model(changes=context.case.rates))
    for path, told in settings(modules).items():
        for name, value in told["attributes"].items():
            if type(value) is float:
                context.emit(row(path, name), value, "statistic")


def row(module: str, attribute: str) -> str:
    return f"{module}.{attribute}"
