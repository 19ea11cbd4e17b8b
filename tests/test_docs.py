"""What the documents say can be typed: every command parses, the Python runs, the figures and links hold."""

import argparse
import ast
import importlib
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from PIL import Image

from align import cli
from align.case import STEPS
from align.cases import files, find
from align.cli.run import CASE
from align.plan import photographs

ROOT = Path(__file__).resolve().parent.parent
READMES = ("README.md", "README_cn.md")
WITH_COMMANDS = (*READMES, "docs/check.md", "docs/ci.md", "docs/gpu.md", "docs/locate.md", "docs/training.md")
PAGES = (*READMES, "log_reprod/README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))))


def fenced(page, language):
    """The contents of the fenced code blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)


def commands(page):
    """Every command line as its words, without comments."""
    lines = "".join(fenced(page, "bash")).replace("\\\n", " ").splitlines()
    return [words for words in (shlex.split(line, comments=True) for line in lines) if words]


def align_arguments(words):
    """What `align` would be given, or None for a script that takes other arguments."""
    if words[0] == ".venv/bin/align":
        return words[1:]
    name = Path(words[1]).name
    if name == "run_all_steps.sh":
        return ["run", *words[2:]]
    step = re.fullmatch(r"step_(\w+)\.sh", name)
    return ["run", step[1], *words[2:]] if step else None


def is_run_elsewhere(words):
    """Of a page with files of its own: tests/test_check_page.py types it."""
    return words[0] == "cp" or words[1:3] == ["-m", "pytest"]


@pytest.fixture
def parse(monkeypatch):
    """Parse arguments as `align` does, with nothing executed; the answer is the namespace."""

    def parsed(arguments):
        caught = []
        module = importlib.import_module(f"align.cli.{cli.COMMANDS[arguments[0]][0]}")
        monkeypatch.setattr(module, "execute", lambda args: caught.append(args) or 0)
        assert cli.main(arguments) == 0
        return caught[0]

    return parsed


TYPED = {
    shlex.join(words): words for page in WITH_COMMANDS for words in commands(page) if not is_run_elsewhere(words)
}  # README_cn.md repeats README.md
TRAINING = {line: words for line, words in TYPED.items() if words[:2] == [".venv/bin/python", "-m"]}
PACKAGES = ("torch_ref", "paddle_impl")
WRONG = "--data imagenet --eval --pretraind"  # no command of a page: that the parser would refuse it
PARSE = """
import contextlib, importlib, io, json, shlex, sys

parse = importlib.import_module(f"{sys.argv[1]}.recipe").parse_arguments
refused = {}
for arguments in sys.argv[2:]:
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told):
            parse(shlex.split(arguments))
    except SystemExit:
        refused[arguments] = told.getvalue()
print(json.dumps(refused))
"""


@pytest.fixture(scope="module")
def refused(run_python):
    """By package, what its training program says to the arguments that it refuses, of all that the pages give it.

    Each package in one process, because it imports a framework.
    """

    def answers(package):
        given = [shlex.join(words[3:]) for words in TRAINING.values() if words[2] == f"{package}.train"]
        return json.loads(run_python(PARSE, package, WRONG, *given).stdout.splitlines()[-1])

    return {package: answers(package) for package in PACKAGES}


@pytest.mark.parametrize("words", [pytest.param(words, id=line) for line, words in TRAINING.items()])
def test_a_training_command_can_be_typed(words, refused):
    assert words[2] in [f"{package}.train" for package in PACKAGES]
    assert shlex.join(words[3:]) not in refused[words[2].removesuffix(".train")]


@pytest.mark.parametrize("package", PACKAGES)
def test_a_wrong_training_command_is_noticed(package, refused):
    assert "unrecognized arguments: --pretraind" in refused[package][WRONG]


@pytest.mark.parametrize(
    "words", [pytest.param(words, id=line) for line, words in TYPED.items() if line not in TRAINING]
)
def test_a_command_can_be_typed(words, parse):
    if words[0] != ".venv/bin/align":
        assert words[0] == "bash"
        assert (ROOT / words[1]).is_file()
    arguments = align_arguments(words)
    if arguments is None:  # setup.sh takes nothing, test.sh hands its arguments to pytest
        assert words[2:] == [] or words[1] == "scripts/test.sh"
        assert all(word == "--slow" or (ROOT / word).exists() for word in words[2:])
        return
    args = parse(arguments)
    if arguments[0] == "run":
        if not files.is_file(args.case or CASE):  # those of a page's own files are run with the page
            find(args.case or CASE)
        assert set(args.steps) <= set(STEPS)


def test_a_wrong_command_is_noticed(parse):
    with pytest.raises(SystemExit):
        parse(["run", "--cases", "pit_ti", "--no-such-option"])


@pytest.mark.parametrize("page", READMES)
def test_every_option_of_run_is_explained(page):
    parser = argparse.ArgumentParser()
    importlib.import_module("align.cli.run").configure(parser)
    options = {option for action in parser._actions for option in action.option_strings if option != "-h"}
    explained = set(re.findall(r"`(--[a-z0-9-]+)", (ROOT / page).read_text()))
    assert {"--case", "--out", "--device"} <= options <= explained


def test_both_readmes_say_the_same():
    english, chinese = READMES
    assert commands(english) == commands(chinese)
    assert [ast.dump(ast.parse(code)) for code in fenced(english, "python")] == [
        ast.dump(ast.parse(code)) for code in fenced(chinese, "python")
    ]
    assert fenced(english, "text")[:3] == fenced(chinese, "text")[:3]  # what a run prints, and a log
    assert models(english) == models(chinese)


def models(page):
    """{variant: (millions of parameters, top-1)} of the table of models."""
    cells = re.findall(r"`(pit_\w+)` \| ([\d.]+) \| ([\d.]+)", (ROOT / page).read_text())
    return {variant: (float(parameters), float(top1)) for variant, parameters, top1 in cells}


def test_the_table_of_models_counts_right(run_python):
    code = """
import json, torch
from torch_ref import pit
with torch.device("meta"):
    sizes = {name: sum(p.numel() for p in getattr(pit, name)().parameters()) for name in pit.VARIANTS}
print(json.dumps(sizes))
"""
    sizes = json.loads(run_python(code).stdout)
    assert {name: round(size / 1e6, 2) for name, size in sizes.items()} == {
        name: parameters for name, (parameters, _) in models("README.md").items()
    }


def test_the_python_of_the_readme_runs(run_python, tmp_path):
    (code,) = fenced("README.md", "python")
    Image.linear_gradient("L").resize((320, 300)).convert("RGB").save(tmp_path / "photo.jpg")
    shapes = "\nassert logits.shape == logits_distilled.shape == [2, 10]"
    result = run_python(code + shapes, cwd=tmp_path)
    assert len(ast.literal_eval(result.stdout.partition("]")[0] + "]")) == 5


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", (ROOT / page).read_text())
    local = [target for target in targets if "://" not in target]
    assert [target for target in local if not (ROOT / page).parent.joinpath(target).exists()] == []


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_the_examples_of_a_command_can_be_typed(name, parse, capsys):
    module = importlib.import_module(f"align.cli.{cli.COMMANDS[name][0]}")
    with pytest.raises(SystemExit):
        cli.main([name, "--help"])
    printed = capsys.readouterr().out
    assert module.EXAMPLES
    for example in module.EXAMPLES:
        assert example in printed
        words = shlex.split(re.split(r"  +", example)[0])  # what comes after more than one space explains it
        assert words[0] == "align"
        parse(words[1:])
    assert any(example.startswith(f"align {name}") for example in module.EXAMPLES)


def test_help_loads_nothing_heavy(run_python):
    code = """
import sys
from align.cli import main
try:
    main(["--help"])
except SystemExit:
    heavy = {"numpy", "numba", "jinja2", "rich", "yaml", "blake3"} & sys.modules.keys()
    print("heavy:", sorted(heavy))
"""
    printed = run_python(code).stdout
    assert "examples:" in printed and "exit codes:" in printed
    assert printed.endswith("heavy: []\n")


def test_the_readme_stays_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 250
    picture = ROOT / "docs/img/report.png"
    assert picture.stat().st_size < 300_000
    with Image.open(picture) as image:
        assert image.width > 1000


# What a user has who types the commands: two small networks, photographs, weights, and a run of `pit_probe`.
NETWORK = """
from {module} import nn

def build():
    return nn.Sequential(nn.Conv2{d}(3, 8, 3), nn.GELU(), nn.Flatten(), nn.Linear(8 * 62 * 62, 10))
"""
# As after training, no bias is zero: of a zero one no run could say that it is not left out, and none would pass.
WEIGHTS = """
import paddle, paddle_impl.pit as pit
for name in ("pit_ti", "pit_s"):
    state = getattr(pit, name)(pretrained=False).state_dict()
    for value in state.values():
        if value.ndim == 1:
            value.set_value(value + 0.02 * paddle.randn(value.shape))
    paddle.save(state, f"{name}.pdparams")
"""
FIRST = ("convert pit_s.pdparams pit_s.safetensors", "run --case pit_probe")
OTHERWISE = ("docs/gpu.md", "docs/check.md")  # needs a GPU; has a pair of files of its own


@pytest.mark.slow
def test_the_commands_of_the_documents_run(run_python, tmp_path):
    """Every `align` command of every page, in the order of reading, but for those of OTHERWISE."""
    (tmp_path / "my_reference.py").write_text(NETWORK.format(module="torch", d="d"))
    (tmp_path / "my_port.py").write_text(NETWORK.format(module="paddle", d="D"))
    (tmp_path / "photographs" / "class").mkdir(parents=True)
    for path in photographs.shipped()[:3]:
        shutil.copy(path, tmp_path / "photographs" / "class")
    run_python(WEIGHTS, cwd=tmp_path)
    pages = [page for page in WITH_COMMANDS if page not in (*OTHERWISE, "README_cn.md")]
    typed = [words[1:] for page in pages for words in commands(page) if words[0] == ".venv/bin/align"]
    for words in [*map(str.split, FIRST), *typed]:
        if words[0] == "record" and "here" in words:
            shutil.copytree(tmp_path / "there", tmp_path / "here")
        if words[0] == "convert":
            words = [*words, "--force"]
        code = "import sys; from align.cli import main; sys.exit(main(sys.argv[1:]))"
        result = run_python(code, *words, cwd=tmp_path, check=False)
        assert result.returncode == 0, f"{shlex.join(words)}\n{result.stdout}\n{result.stderr}"
