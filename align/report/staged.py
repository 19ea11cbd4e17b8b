"""Reports are written aside and moved into place together: a run that fails leaves the earlier ones as they were."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from align.record.manifest import PARTIAL, sweep


@contextmanager
def staged(out: Path) -> Iterator[Path]:
    """A folder to write reports into; its files move into `out`, `verdict.json` last, if the block does not raise."""
    sweep(out)
    folder = Path(tempfile.mkdtemp(prefix=f"{PARTIAL}reports-", dir=out))
    try:
        yield folder
        for path in sorted(folder.iterdir(), key=lambda path: path.name == "verdict.json"):
            path.replace(out / path.name)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
