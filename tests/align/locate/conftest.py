"""A reference process that is kept, and ports with a bug put in, each in a process of its own."""

import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from align.cases import find
from align.locate.search import replayed
from align.pipeline import Options, Recorder
from align.record.process import SideProcess

CASE = find("pit_probe")
BUGS = {bug["id"]: bug for bug in yaml.safe_load((Path(__file__).parent / "bugs.yaml").read_text())}


class Bench:
    """Locates what differs between the reference and a port patched by some of `BUGS`; one paddle process a call."""

    def __init__(self, folder: Path, plan: Path, root: Path) -> None:
        self._folder, self._plan, self._root = folder, plan, root
        self._reference = self._opened("torch")

    def _opened(self, side: str, roots: tuple[Path, ...] = ()) -> SideProcess:
        process = SideProcess(side, self._folder / f"{side}.log", roots=roots)
        request = {"case": asdict(CASE), "plan": str(self._plan), "dtype": "float64", "device": "cpu"}
        request |= {"folder": str(self._folder), "reference": str(self._folder), "modules": ["*"]}
        process.request("open", run=f"{side}-float64", **request)
        return process

    def locate(self, step: str, *bugs: str):
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
        with self._opened("paddle", (copy,)) as port:
            options = Options(CASE, self._folder, (step,))
            options.folder.mkdir(parents=True, exist_ok=True)
            recorder = Recorder(options, lambda *_: None, {"torch": self._reference, "paddle": port})
            return replayed(recorder, step), changed

    def close(self) -> None:
        self._reference.kill()


def _lines(before: list[str], after: list[str]) -> tuple[int, int]:
    """First and last line, from 1, in which the changed text differs."""
    first = next(i for i, (x, y) in enumerate(zip(before, after, strict=False)) if x != y)
    same = next(i for i, (x, y) in enumerate(zip(reversed(before), reversed(after), strict=False)) if x != y)
    return first + 1, len(after) - same


@pytest.fixture(scope="module")
def bench(tmp_path_factory, root, run_python):
    folder = tmp_path_factory.mktemp("locate")
    run_python("from align.cli import main; import sys; sys.exit(main(sys.argv[1:]))",
               "record", "forward", "--side", "torch", "--case", "pit_probe", "--out", folder / "plan")  # fmt: skip
    plan = next((folder / "plan/recordings/pit_probe").glob("plan-*"))
    made = Bench(folder, plan, root)
    yield made
    made.close()
