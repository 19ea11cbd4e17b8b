"""The files that real folders hold besides colour photographs of a decent size, made from one photograph."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from align.plan.photographs import Photograph

SIZE = (331, 251)  # (width, height): margins around a centre crop that rounding and flooring place differently
TINY = (17, 11)
STRIP = (20, 300)  # no box of an aspect ratio from 3/4 to 4/3 may have more than 7 % of its area
ORIENTATION = 0x0112  # EXIF tag; 6: to be shown turned by 90 degrees, which torchvision's loader does not do


def variants(photograph: Photograph, folder: Path) -> dict[str, str]:
    """Write them into `folder`; {name: file name}. The same pixels and Pillow give the same bytes."""
    whole = Image.fromarray(photograph.pixels)
    image = whole.resize(SIZE)
    grey = image.convert("L")
    alpha = image.copy()
    alpha.putalpha(grey)
    turned = Image.Exif()
    turned[ORIENTATION] = 6
    sixteen_bit = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    files: dict[str, tuple[Image.Image, dict[str, Any]]] = {
        "odd.png": (image, {}),
        "tiny.png": (whole.resize(TINY), {}),
        "strip.bmp": (whole.resize(STRIP), {}),
        "grey.png": (grey, {}),
        "bilevel.png": (image.convert("1"), {}),
        "sixteen-bit.png": (sixteen_bit, {}),
        "alpha.png": (alpha, {}),
        "palette.png": (image.quantize(32), {"transparency": 3}),
        "cmyk.jpg": (image.convert("CMYK"), {}),
        "turned.jpg": (image, {"exif": turned}),
    }
    for file, (made, options) in files.items():
        made.save(folder / file, **options)
    return {f"variant-{Path(file).stem}": file for file in files}
