"""The variants of a photograph are the files that folders hold, and the same ones each time."""

import numpy as np
import pytest
from PIL import Image

from align.plan.photographs import Photograph
from align.plan.variants import variants

MODES = {
    "odd": ("RGB", (331, 251)),
    "tiny": ("RGB", (17, 11)),
    "strip": ("RGB", (20, 300)),
    "grey": ("L", (331, 251)),
    "bilevel": ("1", (331, 251)),
    "sixteen-bit": ("I;16", (331, 251)),
    "alpha": ("RGBA", (331, 251)),
    "palette": ("P", (331, 251)),
    "cmyk": ("CMYK", (331, 251)),
    "turned": ("RGB", (331, 251)),
}


@pytest.fixture
def photograph(tmp_path):
    ramp = np.linspace(0, 255, 90 * 120 * 3).reshape(90, 120, 3).astype(np.uint8)
    return Photograph("ramp", tmp_path / "ramp.png", np.roll(ramp, 20, axis=1))


def test_every_mode_and_size_is_there(photograph, tmp_path):
    files = variants(photograph, tmp_path)
    assert set(files) == {f"variant-{name}" for name in MODES}
    for name, file in files.items():
        with Image.open(tmp_path / file) as image:
            assert (image.mode, image.size) == MODES[name.removeprefix("variant-")], name
            image.convert("RGB")
    with Image.open(tmp_path / files["variant-turned"]) as image:
        assert image.getexif()[0x0112] == 6
    with Image.open(tmp_path / files["variant-palette"]) as image:
        assert image.info["transparency"] == 3


def test_the_same_photograph_gives_the_same_bytes(photograph, tmp_path):
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
        files = variants(photograph, folder)
    for file in files.values():
        assert len({(folder / file).read_bytes() for folder in folders}) == 1
