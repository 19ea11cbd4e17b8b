"""Files that the reference answered with, handed on to mutants."""

import errno
import os

import pytest

from align.mutate import remembered


@pytest.mark.parametrize("same_disk", [True, False])
def test_a_file_is_handed_on_whatever_disk_it_goes_to(tmp_path, monkeypatch, same_disk):
    def other_disk(*_):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    if not same_disk:
        monkeypatch.setattr(os, "link", other_disk)
    (tmp_path / "kept").write_bytes(b"bytes")
    remembered._linked(tmp_path / "kept", tmp_path / "handed")
    assert (tmp_path / "handed").read_bytes() == b"bytes"
    assert (tmp_path / "handed").samefile(tmp_path / "kept") == same_disk
