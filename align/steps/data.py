"""`data`: each image decoded, resized, cropped and normalised by the side's own library, compared after every stage."""

from align.record.context import Context


def record(context: Context) -> None:
    stages = context.package("data").eval_stages
    images = context.plan.images
    for index, (name, path) in enumerate(images.items()):
        for stage, value in stages(str(path)).items():
            context.emit(f"{name}/{stage}", value, "output", headline=True)
        context.progress(index + 1, len(images))
