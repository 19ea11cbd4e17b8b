"""Both fuzzers for a few seconds, and every input that they ever found telling, once more, with its memory measured."""

import os
import resource
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from align.errors import UsageError
from align.record.safe_pickle import read_dictionary_bytes, read_pdparams_bytes
from align.record.store import read_index

HERE = Path(__file__).parent
SECONDS = 7  # each
TARGETS = {"dictionary": 2048, "index": 4096}  # the longest input, in bytes


def corpus(target):
    return sorted((HERE / "corpus" / target).iterdir())


@pytest.mark.parametrize("target", TARGETS)
def test_the_corpus_is_small_and_there(target):
    files = corpus(target)
    assert len(files) > 20
    assert sum(path.stat().st_size for path in files) < 100_000


@pytest.mark.parametrize(
    ("read", "target"),
    [
        (read_dictionary_bytes, "dictionary"),
        (read_pdparams_bytes, "dictionary"),
        (lambda data: read_index(data, 4096, "index"), "index"),
    ],
    ids=["reprod_log", "pdparams", "index"],
)
def test_every_input_of_the_corpus(read, target):
    """Plain content or UsageError, and memory in proportion: a small start, and so many bytes for one of the input."""
    outcomes = set()
    for path in corpus(target):
        data = path.read_bytes()
        tracemalloc.start()
        try:
            read(data)
            outcomes.add("read")
        except UsageError:
            outcomes.add("refused")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < (1 << 18) + 100 * len(data), path.name
    assert outcomes == {"read", "refused"}


@pytest.mark.parametrize("target", TARGETS)
def test_fuzzing(target, tmp_path):
    """New inputs at every run; one that fails is left in the temporary folder, and the report holds it in base64."""
    pytest.importorskip("atheris", reason="atheris is part of the extra `dev`")
    (tmp_path / "new").mkdir()
    # The greatest memory of a new process counts that of the one that started it (Linux: until exec, it is the same).
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024  # MiB
    result = subprocess.run(
        [
            sys.executable,
            str(HERE / f"fuzz_{target}.py"),
            f"-max_total_time={SECONDS}",
            f"-max_len={TARGETS[target]}",
            f"-dict={HERE / target}.dict",
            f"-artifact_prefix={tmp_path}/",
            f"-rss_limit_mb={512 + own}",
            "-timeout=5",
            str(tmp_path / "new"),
            str(HERE / "corpus" / target),
        ],
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-5000:]
    assert "DONE" in result.stderr
