"""`weights`: names, shapes and values of every tensor after the package's own loader has loaded the plan's weights."""

from align.record.context import Context, resolve


def record(context: Context) -> None:
    side, case = context.side, context.case
    model = side.build(resolve(case.builder(side.name)), case.build)
    context.package("weights").load_reference_state(model, context.arrays("weights/"))
    for name, (kind, array) in side.state(model).items():
        context.emit(name, array, kind, headline=True)
