"""`align check`: two models by their paths, in real processes; what cannot be used is one message."""

import argparse
import json
import subprocess
import sys

import numpy as np
import pytest

from align.cli import check, write_map
from align.cli.output import check_writable
from align.compare import waivers
from align.compare.weights import weights_of
from align.errors import AlignError, UsageError
from align.gate import reported
from align.mapping import read
from align.running import Running

NAMES = {"torch": ("torch", "Module"), "paddle": ("paddle", "Layer")}
MODELS = """
import {framework}
from {framework} import nn


class Net(nn.{base}):
    def __init__(self, width=6):
        super().__init__()
        self.fc = nn.Linear(width, 4)
        self.norm = nn.LayerNorm(4)

    def forward(self, x):
        return self.norm(self.fc(x))


class Renamed(nn.{base}):
    def __init__(self):
        super().__init__()
        self.{other}_in = nn.Linear(6, 4)
        self.{other}_out = nn.Linear(4, 5)

    def forward(self, x):
        return self.{other}_out({framework}.tanh(self.{other}_in(x)))


class Unlike(Net):
    def __init__(self):
        super().__init__()
        self.only_{framework} = nn.Linear(3, {width})


class Raises(Net):
    def __init__(self):
        raise ValueError("no such size")


class Crash(Net):
    def forward(self, x):
        raise RuntimeError("boom")


class Two(Net):
    def forward(self, x, mask):
        return self.norm(self.fc(x)) * mask["keep"].{to}(x.dtype)


class Keyword(Net):
    def forward(self, *, pixels):
        return self.norm(self.fc(pixels))


class Several(Net):
    def forward(self, x):
        y = self.fc(x)
        return {{"before": y, "after": self.norm(y)}}


class Wide(Net):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(5)
        self.fc = nn.Linear(6, 5)


class Stateful(Net):
    def forward(self, x):
        Net.calls = getattr(Net, "calls", 0) + 1
        return self.fc(x) * Net.calls


class Bare(nn.{base}):
    def forward(self, x):
        return {framework}.tanh(x) * 2


class Tokens(nn.{base}):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(7, 4)

    def forward(self, ids):
        return self.table(ids)


class Text(Net):
    def forward(self, x):
        return "text"


class Leaves(Net):
    def forward(self, x):
        raise SystemExit(3)


def square(x):
    return x * x


number = 5
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Models of both sides, and files that are none."""
    path = tmp_path_factory.mktemp("models")
    for side, (framework, base) in NAMES.items():
        facts = {
            "other": f"{side}s",
            "width": {"torch": 7, "paddle": 8}[side],
            "to": {"torch": "to"}.get(side, "astype"),
        }
        (path / f"{side}_models.py").write_text(MODELS.format(framework=framework, base=base, **facts))
    (path / "broken.py").write_text("def Net(:\n")
    (path / "lost.py").write_text("import not_there_at_all\n")
    (path / "leaves.py").write_text("import argparse\nargparse.ArgumentParser().parse_args(['--what'])\n")
    (path / "both.py").write_text("import torch\n" + (path / "paddle_models.py").read_text())
    np.save(path / "x.npy", np.linspace(-1, 1, 18, dtype=np.float64).reshape(3, 6))
    (path / "wrong.toml").write_text('[parameters]\n"fc.weigh" = "fc.weight"\n')
    return path


@pytest.fixture(scope="module")
def verdict(folder, tmp_path_factory):
    """Check on one pair of processes: the verdict of the words of a command line, or what was raised."""
    out = tmp_path_factory.mktemp("out")
    with Running() as running, pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)

        def run(words):
            parser = argparse.ArgumentParser()
            check.configure(parser)
            options = check.options_of(parser.parse_args([*words.split(), "--out", str(out)]))
            return reported(options, waivers.read(None, None), processes=running.of(options), logs=False)

        yield run


GOOD = [
    ("torch_models.py:Net paddle_models.py:Net --input 3,6", "weights: 4 by name"),
    ("torch_models.py:Net(width=5) paddle_models.py:Net(5) --input 3,5", "weights: 4 by name"),
    ("torch.nn:Linear(6,4) paddle.nn:Linear(6,4) --input @x.npy", "weights: 2 by name"),
    ("torch_models.py:Renamed paddle_models.py:Renamed --input 3,6", "weights: 4 by value"),
    ("torch_models.py:Two paddle_models.py:Two --input 3,6 --input mask.keep=3,4:bool", "weights: 4 by name"),
    ("torch_models.py:Keyword paddle_models.py:Keyword --input pixels=3,6", "weights: 4 by name"),
    ("torch_models.py:Several paddle_models.py:Several --input 3,6", "weights: 4 by name"),
    ("torch_models.py:Tokens paddle_models.py:Tokens --input 3,5:int64<7", "weights: 1 by name"),
    ("torch_models.py:Bare paddle_models.py:Bare --input 3,6", "weights: none"),
    ("torch_models.py:square(...) paddle_models.py:square(...) --input 3,6", "weights: none"),
]


@pytest.mark.parametrize(("words", "weights"), GOOD, ids=[words for words, _ in GOOD])
def test_equal_models_are_aligned(verdict, words, weights):
    result = verdict(words)
    assert result.verdict == "aligned", [row for step in result.steps for row in step.failing]
    assert [step.step for step in result.steps] == ["forward", "bp_align"]
    assert str(result.weights) == weights


RED = [
    ("torch_models.py:Net paddle_models.py:Crash --input 3,6", "(raised)", "the port raised RuntimeError: boom at "),
    ("torch_models.py:Net paddle_models.py:Leaves --input 3,6", "(raised)", "the port raised SystemExit: 3 at "),
    ("torch_models.py:Net paddle_models.py:Several --input 3,6", "output", "it gives output/before, output/after"),
    ("torch_models.py:Several paddle_models.py:Net --input 3,6", "output/after", "has no such tensor; it gives output"),
    ("torch_models.py:Net paddle_models.py:Wide --input 3,6", "output", "shape (3, 5) in the port, (3, 4) in the ref"),
    ("torch_models.py:Unlike paddle_models.py:Unlike --input 3,6", "param/only_torch.weight", "has no such tensor"),
    ("torch_models.py:Net paddle_models.py:Unlike --input 3,6", "param/only_paddle.bias", "has no such tensor"),
]


@pytest.mark.parametrize(("words", "row", "reason"), RED, ids=[words for words, *_ in RED])
def test_a_port_that_does_otherwise_is_red(verdict, words, row, reason):
    result = verdict(words)
    assert result.exit_code == 1
    found = {failing.name: failing.reason for step in result.steps for failing in step.failing}
    assert reason in found[row]


UNUSABLE = [
    (
        "nowhere.models:Net paddle_models.py:Net --input 3,6",
        "nowhere.models:Net: no module 'nowhere'; check",
    ),
    ("torch_models.py:Nett paddle_models.py:Net --input 3,6", "torch_models.py has no 'Nett'; near: Net"),
    ("torch_models.py paddle_models.py:Net --input 3,6", "expected package.module:name or file.py:name"),
    ("torch_models.py:Net none.py:Net --input 3,6", "none.py: no such file; give a Python file as folder/port.py:Net"),
    ("torch.nn:Linear(6,x) paddle.nn:Linear(6,4) --input 3,6", "in brackets must be literals"),
    (
        "torch_models.py:Net broken.py:Net --input 3,6",
        "broken.py:Net: to import it raised SyntaxError: invalid synt",
    ),
    (
        "broken.py:Net paddle_models.py:Net --input 3,6",
        "broken.py:Net: to import it raised SyntaxError: invalid",
    ),
    ("torch_models.py:Net lost.py:Net --input 3,6", "lost.py: it imports 'not_there_at_all', which is not there"),
    ("torch_models.py:Net leaves.py:Net --input 3,6", "leaves.py:Net: to import it raised SystemExit: 2 at"),
    (
        "torch_models.py:Net paddle_models.py:Raises --input 3,6",
        "Raises: to build it raised ValueError: no such",
    ),
    (
        "torch_models.py:Raises paddle_models.py:Net --input 3,6",
        "Raises: to build it raised ValueError: no such",
    ),
    (
        "torch_models.py:square paddle_models.py:square --input 3,6",
        "a function that is itself the model",
    ),
    ("torch_models.py:number paddle_models.py:Net --input 3,6", "'int' object is not callable"),
    ("torch_models.py:Net paddle_models.py:Text --input 3,6", "the model gives str without a tensor; wrap it"),
    ("torch_models.py:Crash paddle_models.py:Net --input 3,6", "called with (3, 6) float32: RuntimeError: boom at"),
    ("torch_models.py:Two paddle_models.py:Two --input 3,6", "missing 1 required positional argument: 'mask'"),
    (
        "torch_models.py:Keyword paddle_models.py:Keyword --input pixel=3,6",
        "called with pixel=(3, 6) float32: Type",
    ),
    ("torch_models.py:Net paddle_models.py:Net --input 3,7", "cannot be multiplied (3x7 and 6x4) at"),
    ("torch_models.py:Tokens paddle_models.py:Tokens --input 3,5:int64", "say below which number they are"),
    ("torch_models.py:Tokens paddle_models.py:Tokens --input 3,5:int64<9", "index out of range"),
    (
        "torch_models.py:Stateful paddle_models.py:Net --input 3,6",
        "torch_models.py:Stateful: run twice on the same",
    ),
    (
        "torch_models.py:Net paddle_models.py:Stateful --input 3,6",
        "paddle_models.py:Stateful: run twice on the",
    ),
    (
        "torch_models.py:Net paddle_models.py:Net --input 3,6 --map wrong.toml",
        "[parameters] names 'fc.weigh', which",
    ),
    ("torch_models.py:Net both.py:Net --input 3,6", "the paddle process imported 'torch' ("),
    ("paddle_models.py:Net paddle_models.py:Net --input 3,6", "keep the two frameworks in files of their own"),
]


@pytest.mark.parametrize(("words", "message"), UNUSABLE, ids=[words for words, _ in UNUSABLE])
def test_what_cannot_be_used_is_one_message(verdict, words, message):
    with pytest.raises(AlignError) as raised:
        verdict(words)
    assert raised.value.exit_code == 2
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_map_is_written_and_read_back(align, folder, tmp_path):
    """What was found by value is then as the file says; what is wrong in the file is believed."""
    names = tmp_path / "names.toml"
    pair = ("check", "torch_models.py:Renamed", "paddle_models.py:Renamed", "--input", "3,6", "--step", "forward")
    first = align(*pair, "--out", tmp_path / "out", "--write-map", names, cwd=folder)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "weights: 4 by value" in first.stdout
    assert '"torchs_in.weight" = "paddles_in.weight"    # by value' in names.read_text()
    again = align(*pair, "--out", tmp_path / "out", "--map", names, "--json", cwd=folder)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["weights"]["counts"] == {"override": 4}


def test_what_is_not_paired_is_named_and_offered(align, folder, tmp_path):
    names = tmp_path / "names.toml"
    words = ("torch_models.py:Unlike", "paddle_models.py:Unlike", "--input", "3,6", "--write-map", names)
    result = align("check", *words, "--out", tmp_path / "out", cwd=folder)
    assert result.returncode == 1, result.stdout + result.stderr
    assert "weights: 4 by name, 2 of the reference's not paired, 2 of the port's not paired" in result.stdout
    assert "not paired, reference: only_torch.weight, only_torch.bias" in result.stdout
    assert "not paired, port: only_paddle.weight, only_paddle.bias" in result.stdout
    assert '# "only_torch.weight" = ""    # (7, 3); none of this shape is free in the port' in names.read_text()
    assert set(read(names)["parameters"]) == {"fc.weight", "fc.bias", "norm.weight", "norm.bias"}


def test_candidates_stand_in_a_map_as_comments():
    rows = [{"name": name, "shape": [4], "kind": "parameter"} for name in "abc"]
    port = {"parameters": {}, "matched_by": {}, "unpaired": {"torch": ["a"], "paddle": ["b", "c"]}, "table": rows[1:]}
    told = write_map.text("net", {"table": rows[:1]}, port)
    assert '# "a" = "b"    # (4), or "c"\n' in told
    assert '# Only in the port:\n# "b"    (4), parameter\n' in told
    assert str(weights_of(port)) == "weights: 1 of the reference's not paired, 2 of the port's not paired"


def test_a_map_that_cannot_be_written(tmp_path):
    with pytest.raises(UsageError, match="cannot write there"):
        check_writable("--write-map", tmp_path / "none" / "map.toml")
    check_writable("--write-map", tmp_path / "map.toml")


def test_sides_in_environments_of_their_own(align, folder, tmp_path):
    """Recorded by one interpreter, and judged with the port in another, which lies elsewhere."""
    pythons = {side: _environment(tmp_path / side) for side in ("torch", "paddle")}
    words = ("check", "torch_models.py:Net", "paddle_models.py:Net", "--input", "3,6", "--out", tmp_path / "out")
    there = align(*words, "--side", "torch", "--torch-python", pythons["torch"], cwd=folder)
    assert there.returncode == 0, there.stdout + there.stderr
    assert not (tmp_path / "out/verdict.json").exists()
    here = align(*words, "--side", "paddle", "--paddle-python", pythons["paddle"], cwd=folder)
    assert here.returncode == 0, here.stdout + here.stderr
    assert "weights: 4 by name" in here.stdout
    manifests = [json.loads(path.read_text()) for path in (tmp_path / "out").rglob("manifest.json")]
    assert {told["side"]: told["environment"]["prefix"] for told in manifests} == {
        side: str(tmp_path / side) for side in pythons
    }


def _environment(path):
    """A virtual environment without pip that finds the packages of this one."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", path], check=True)
    packages = next(path.glob("lib/python*/site-packages"))
    own = next(entry for entry in sys.path if entry.endswith("site-packages"))
    (packages / "locked.pth").write_text(f"{own}\n")
    return path / "bin/python"


def test_packages_of_pythonpath_and_a_model_that_reads_standard_input(align, root, tmp_path):
    """Nobody answers a model: it meets the end of its input, and does not wait for ever."""
    package = tmp_path / "elsewhere" / "brought"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "net.py").write_text(
        "from torch import nn\n\n\nclass Net(nn.Tanh):\n"
        "    def forward(self, x):\n        return super().forward(x) * float(input('factor? '))\n"
    )
    path = {"PYTHONPATH": f"{root}:{package.parent}"}
    told = ["check", "brought.net:Net", "brought.port:Net", "--input", "2,3", "--side", "torch", "--out", tmp_path]
    result = align(*told, cwd=tmp_path, env=path)
    assert result.returncode == 2, result.stderr
    assert f"EOFError: EOF when reading a line at {package}/net.py:6" in result.stderr


def test_a_damaged_plan_is_made_anew(align, tmp_path):
    told = ["check", "torch.nn:Tanh()", "paddle.nn:Tanh()", "--input", "2,3", "--side", "torch", "--out", tmp_path]
    assert align(*told, cwd=tmp_path).returncode == 0
    (plan,) = tmp_path.glob("recordings/Tanh/plan-*")
    whole = {path: path.read_bytes() for path in plan.rglob("*") if path.is_file()}
    damaged = max(whole, key=lambda path: len(whole[path]))
    damaged.write_bytes(whole[damaged][:-1])
    assert align(*told, cwd=tmp_path).returncode == 0
    assert {path: path.read_bytes() for path in plan.rglob("*") if path.is_file()} == whole
