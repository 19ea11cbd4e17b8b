"""A reference process that is kept, and ports with a bug put in, each in a process of its own."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from align.cases import find
from align.locate.search import replayed
from align.pipeline import Options, Recorder
from align.record.process import SideProcess

BUGS = {bug["id"]: bug for bug in yaml.safe_load((Path(__file__).parent / "bugs.yaml").read_text())}


class Bench:
    """Locates what differs between the reference and a port patched by some of `BUGS`; one paddle process a call."""

    def __init__(self, folder: Path, root: Path, case) -> None:
        self._folder, self._root, self._case = folder, root, case
        self._reference = SideProcess("torch", folder / "torch.log")

    def locate(self, step: str, *bugs: str, mapping=None):
        """(divergences, changed lines by bug: (first, last))."""
        copy = self._folder / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self._root / "paddle_impl", copy / "paddle_impl", ignore=shutil.ignore_patterns("__pycache__"))
        changed = {}
        for bug in bugs:
            path = copy / BUGS[bug]["file"]
            before = path.read_text()
            after = before.replace(BUGS[bug]["find"], BUGS[bug]["replace"], 1)
            assert after != before, f"{bug}: the text to replace is not in the port"
            path.write_text(after)
            changed[bug] = _lines(before.splitlines(), after.splitlines())
        with SideProcess("paddle", self._folder / "paddle.log", roots=(copy,)) as port:
            options = Options(replace(self._case, mapping=mapping or {}), self._folder, (step,))
            options.folder.mkdir(parents=True, exist_ok=True)
            recorder = Recorder(options, lambda *_: None, {"torch": self._reference, "paddle": port})
            recorder.open_twins()
            return replayed(recorder, step), changed

    def close(self) -> None:
        self._reference.kill()


def _lines(before: list[str], after: list[str]) -> tuple[int, int]:
    """First and last line, from 1, in which the changed text differs."""
    first = next(i for i, (x, y) in enumerate(zip(before, after, strict=False)) if x != y)
    same = next(i for i, (x, y) in enumerate(zip(reversed(before), reversed(after), strict=False)) if x != y)
    return first + 1, len(after) - same


@pytest.fixture(scope="module")
def bench(tmp_path_factory, root):
    made = Bench(tmp_path_factory.mktemp("locate"), root, find("pit_probe"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def unlike(tmp_path_factory, root):
    """The same port beside timm's own model of the same sizes: other module tree, other names."""
    changes = {"reference": "tests.align.locate.timm_pit:distilled", "reference_package": "torch_ref"}
    case = replace(find("pit_probe"), port_names="paddle_impl.weights:timm_to_official", **changes)
    made = Bench(tmp_path_factory.mktemp("unlike"), root, case)
    yield made
    made.close()


def meets(where, lines):
    """Whether the blamed statement, or the constructor call, touches the changed lines."""
    spans = [(where.line, where.end_line)]
    if where.built:
        spans.append((where.built["line"], where.built["end_line"]))
    return any(first <= lines[1] and last >= lines[0] for first, last in spans)
