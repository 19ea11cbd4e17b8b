"""A folder of classes as data sets come: files of no image, hidden ones, deeper folders, names that sort in surprising
ways, and classes whose order of age is not that of their names."""

import os
from pathlib import Path

# In the order in which they are made. The files are empty: only their names count.
FILES = (
    "b/2.png",
    "b/10.png",
    "10/x.webp",
    "a/z.png",
    "a/deep/er/1.JPG",
    "a/deep/0.jpeg",
    "a/notes.txt",
    "B/x.bmp",
    "9/.x.png",
    "9/x.tif",
    ".hidden/x.png",
)
# Folders that a list of classes cannot be made of, and what is in them.
UNUSABLE = {"no-image": ("a/notes.txt",), "empty-class": ("a/1.png", "b/notes.txt"), "mixed": ("a/1.png", "2.png")}


def make(folder: Path) -> None:
    """Write `usable/` and one folder for each of `UNUSABLE`."""
    for name, files in {"usable": FILES, **UNUSABLE}.items():
        for file in files:
            path = folder / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    for age, kind in enumerate(dict.fromkeys(file.partition("/")[0] for file in FILES)):
        os.utime(folder / "usable" / kind, (age, age))
