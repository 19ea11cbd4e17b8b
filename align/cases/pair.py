"""A case of two models alone, from what a user names."""

import re
from collections.abc import Sequence
from typing import Any

from align.case import ALONE, Case, Input


def pair(reference: str, port: str, inputs: Sequence[Input], name: str | None = None, **fields: Any) -> Case:
    """The case of two builders' paths; its name is the reference's, unless told."""
    return Case(
        name=name or name_of(reference),
        reference=reference,
        port=port,
        build={},
        inputs=tuple(inputs),
        loss=None,
        pair=True,
        **{"steps": ALONE, **fields},
    )


def name_of(path: str) -> str:
    """A name for files, from a builder's path: `torchvision.models:resnet50(...)` is `resnet50`."""
    name = path.partition("(")[0].partition(":")[2] or path
    return re.sub(r"[^\w.-]+", "_", name).strip("._") or "model"
