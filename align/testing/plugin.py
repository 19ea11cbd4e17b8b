"""The pytest plugin. Every pytest run of an environment with this package loads it, so it imports next to nothing."""

import hashlib
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from align.errors import AlignError
from align.testing import Pair

if TYPE_CHECKING:
    from align.compare.verdict import Verdict
    from align.testing.harness import Harness

LONGEST = 80  # characters of a folder's name that are made of a test's name
HARNESS = pytest.StashKey["Harness"]()


class Misaligned(AssertionError):
    """A pair that is not aligned; the message is what `align check` prints."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("align", "alignment of a PaddlePaddle port with its PyTorch reference")
    group.addoption("--align-out", type=Path, metavar="DIR", help="keep reports there (default: in pytest's cache)")
    group.addoption("--align-device", choices=("cpu", "gpu"), default="cpu", help="device of both sides")
    for side in ("torch", "paddle"):
        group.addoption(f"--align-{side}-python", metavar="P", help=f"interpreter of the {side} side")


def pytest_unconfigure(config: pytest.Config) -> None:
    if harness := config.stash.get(HARNESS, None):
        harness.end()


def pytest_pycollect_makeitem(collector: Any, name: str, obj: object) -> "PairCollector | None":
    if isinstance(obj, Pair):
        return PairCollector.from_parent(collector, name=name, pair=obj)
    return None


@pytest.fixture
def assert_aligned(request: pytest.FixtureRequest) -> Callable[..., "Verdict"]:
    """Compare a reference and a port; the test fails with what `align check` prints unless they are aligned.

    Call it with the arguments of `align.testing.harness.Harness.run`. The answer is the verdict.
    """
    calls = 0

    def check(reference: Any = None, port: Any = None, inputs: Any = (), **settings: Any) -> "Verdict":
        __tracebackhide__ = True
        nonlocal calls
        calls += 1
        folder = _folder(request.config, f"{request.node.nodeid}{'-' + str(calls) if calls > 1 else ''}")
        try:
            result, text = _harness(request.config).run(folder, reference, port, inputs, **settings)
        except AlignError as error:
            told = f"nothing could be compared: {error}"
        else:
            if result:
                return result
            raise Misaligned(text)
        pytest.fail(told)

    return check


class PairCollector(pytest.Collector):
    """A pair in a test module. Collecting it runs it; its tests are the rows, and `verdict` for the whole."""

    def __init__(self, *, pair: Pair, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pair = pair

    def collect(self) -> Iterator[pytest.Item]:
        pair, folder = self.pair, _folder(self.config, self.nodeid)
        run = getattr(self.config, "workerinput", {}).get("testrunuid", "")
        arguments = {"reference": pair.reference, "port": pair.port, "inputs": pair.inputs, "case": pair.case}
        try:
            rows, verdict, text = _harness(self.config).rows(folder, run, **arguments, **pair.settings)
        except AlignError as error:
            raise self.CollectError(f"nothing could be compared: {error}") from None
        for row in rows:
            yield RowItem.from_parent(self, name=f"{row['step']}/{row['name']}", row=row)
        yield VerdictItem.from_parent(self, name="verdict", verdict=verdict, text=text)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        return str(excinfo.value) if excinfo.errisinstance(self.CollectError) else super().repr_failure(excinfo)


class _Item(pytest.Item):
    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        return str(excinfo.value) if excinfo.errisinstance(Misaligned) else super().repr_failure(excinfo)

    def reportinfo(self) -> tuple[Any, int | None, str]:
        return self.path, None, self.nodeid.partition("::")[2]


class RowItem(_Item):
    """One compared tensor; skipped where nobody could have seen a difference, or one is accepted."""

    def __init__(self, *, row: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.row = row

    def runtest(self) -> None:
        row = self.row
        if row["verdict"] in ("misaligned", "missing"):
            raise Misaligned(f"{row['verdict']} {row['step']}: {row['name']}: {row['reason']}")
        if row["verdict"] in ("waived", "insensitive"):
            pytest.skip(row["waived"] or row["reason"] or row["verdict"])


class VerdictItem(_Item):
    """The pair as a whole, with the lines and causes that were found."""

    def __init__(self, *, verdict: str, text: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.verdict, self.text = verdict, text

    def runtest(self) -> None:
        if self.verdict != "aligned":
            raise Misaligned(self.text)


def _harness(config: pytest.Config) -> "Harness":
    """One for the whole session: the frameworks are imported once."""
    if HARNESS not in config.stash:
        from align.testing.harness import Harness

        pythons = {side: config.getoption(f"--align-{side}-python") for side in ("torch", "paddle")}
        config.stash[HARNESS] = Harness(pythons, config.getoption("--align-device"))
    return config.stash[HARNESS]


def _folder(config: pytest.Config, nodeid: str) -> Path:
    """Where the reports of a test lie, the same at every run."""
    name = re.sub(r"\W+", "_", nodeid.removesuffix("]")).strip("_")
    if len(name) > LONGEST:
        name = f"{name[:LONGEST]}-{hashlib.sha256(nodeid.encode()).hexdigest()[:8]}"
    out = config.getoption("--align-out")
    if out is None:
        cache = getattr(config, "cache", None)  # none with -p no:cacheprovider
        out = Path(cache.mkdir("align")) if cache else Path(tempfile.gettempdir()) / "align-pytest"
    return out.absolute() / name
