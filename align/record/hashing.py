"""BLAKE3 of a file of any size, on all processors, in bounded memory."""

import mmap
from pathlib import Path

from blake3 import blake3

STRETCH = 1 << 26  # bytes hashed before their pages are let go


def file_hash(path: Path) -> str:
    """Hexadecimal digest of a file's bytes; the process does not grow by the file's size."""
    digest = blake3(max_threads=blake3.AUTO)
    with path.open("rb") as file:
        if path.stat().st_size == 0:  # an empty file cannot be mapped
            return digest.hexdigest()
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapping:
            for start in range(0, len(mapping), STRETCH):
                with memoryview(mapping)[start : start + STRETCH] as stretch:
                    digest.update(stretch)
                if hasattr(mmap, "MADV_DONTNEED"):
                    mapping.madvise(mmap.MADV_DONTNEED)
    return digest.hexdigest()
