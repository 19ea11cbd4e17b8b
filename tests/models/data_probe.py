"""What one side's `data.py` makes of files: `python -m tests.models.data_probe PACKAGE FOLDER BAD OUT ROOT...`.

Writes OUT, a JSON of
    stages: {dtype: {image: {stage: [dtype, shape, SHA-256 of the bytes]}}} of every image in FOLDER,
    listings: what each ROOT lists, or the message it is refused with,
    refused: {file: message} for every file in BAD.
"""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np

from tests.models.recipe_sides import open_side


def fingerprint(array):
    """What must be equal for two stages to be equal to the bit."""
    array = np.ascontiguousarray(array)
    return [str(array.dtype), list(array.shape), hashlib.sha256(array.tobytes()).hexdigest()]


def stages(package, folder):
    found = {}
    for dtype in ("float32", "float64"):
        side, recipe = open_side(package, dtype)
        transform = recipe.data.eval_transform()
        found[dtype] = {}
        for path, _ in recipe.data.list_images(folder):
            values = recipe.data.eval_stages(path)
            values["normalised"] = side.numpy(values["normalised"])
            values["composed"] = side.numpy(transform(recipe.data.load_image(path)))
            found[dtype][path.name] = {stage: fingerprint(array) for stage, array in values.items()}
    return found


def answer(call, *arguments):
    """The JSON-ready result, or the message of the ValueError."""
    try:
        return [[str(path), index] for path, index in call(*arguments)]
    except ValueError as error:
        return str(error)


if __name__ == "__main__":
    package, folder, bad, out, *roots = sys.argv[1:]
    facts = {"stages": stages(package, folder)}
    data = open_side(package)[1].data
    facts["listings"] = [answer(data.list_images, root) for root in roots]
    files = [*sorted(Path(bad).iterdir()), Path(bad) / "missing.jpg"]
    facts["refused"] = {path.name: answer(data.eval_stages, path) for path in files}
    facts["too_small"] = answer(data.eval_transform, 224, 200)
    Path(out).write_text(json.dumps(facts))
