"""Cases in files, and what a file says that cannot be meant."""

import textwrap

import pytest

from align.case import ALONE, Input
from align.cases import files, find
from align.cases.paths import path_of
from align.errors import UsageError

GOOD = """
[[case]]
name = "net"
reference = "torch_net.py:Net(4)"
port = "package.port:Net"
inputs = ["2,3,8,8", "ids=2,7:int64<9"]
probes = ["middle"]
"""


@pytest.fixture
def file(tmp_path):
    def write(text, name="cases.toml"):
        path = tmp_path / name
        path.write_text(textwrap.dedent(text))
        return path

    return write


def test_a_table_is_a_case_beside_its_file(file, tmp_path):
    case = find(f"{file(GOOD)}:net")
    assert case.reference == f"{tmp_path / 'torch_net.py'}:Net(4)"
    assert case.port == "package.port:Net"
    assert [(spec.name, spec.shape, spec.fill) for spec in case.inputs] == [
        ("0", (2, 3, 8, 8), "photographs"),
        ("ids", (2, 7), "integers"),
    ]
    assert (case.steps, case.pair, case.alone, case.probes) == (ALONE, True, True, ("middle",))
    assert find(str(file(GOOD))) == case  # the only one needs no name


def test_a_python_file_holds_cases_and_lists_of_them(file):
    path = file(
        """
        from align.case import Case, Input, Loss

        def build(width=3): ...

        ONE = Case("one", build, "port.py:Net", inputs=("x=2,3",))
        MORE = [Case("two", "a:A", "b:B", inputs=[Input("", (2, 3))], loss=Loss(), classes=5, steps=("loss",))]
        """,
        "cases.py",
    )
    cases = files.read(path)
    assert cases["one"].reference == f"{path}:build"
    assert cases["one"].inputs == (Input("x", (2, 3), "normal", argument="x"),)
    assert (cases["two"].steps, cases["two"].pair, cases["two"].inputs[0].name) == (("loss",), False, "0")


BAD = [
    ("name = 3", "expected only [[case]] tables, found name"),
    ("[[case", "cannot read it as TOML"),
    ('[[case]]\nname = "a"\n', "case 1: lacks reference, port, inputs"),
    (GOOD + "colour = 3\n", "case 1: 'colour' is no field of a case; known: build, classes, "),
    (GOOD + GOOD, "two cases are called 'net'"),
    (GOOD.replace("2,3,8,8", "2x3"), "case 1: --input 2x3: expected"),
    (GOOD.replace('["2,3,8,8", "ids=2,7:int64<9"]', "[]"), "case 1: --input: give every input of the model"),
    (GOOD + 'steps = ["optim"]\n', "without a loss there is no step 'optim'; there are forward bp_align"),
    (GOOD + "loss = { smoothing = 0.1 }\n", "a case with a loss needs `classes`"),
    (GOOD + "loss = { smooth = 0.1 }\n", "unexpected keyword argument 'smooth'"),
    (GOOD + 'loss = {smoothing=0.1}\nclasses = 9\nsteps = ["metric"]\n', "step 'metric' needs 'forward', too"),
    (GOOD + 'loss = {smoothing=0.1}\nclasses = 9\nsteps = ["train_align"]\n', "without `training` there is no step"),
]


@pytest.mark.parametrize(("text", "message"), BAD)
def test_a_file_that_cannot_be_meant(file, text, message):
    path = file(text)
    with pytest.raises(UsageError) as raised:
        find(f"{path}:net")
    assert str(raised.value).startswith(str(path))
    assert message in str(raised.value)


def test_names_that_are_not_there(file, tmp_path):
    with pytest.raises(UsageError, match="no such file of cases"):
        find(f"{tmp_path}/none.toml:net")
    with pytest.raises(UsageError, match="has no case 'nett'; it has net"):
        find(f"{file(GOOD)}:nett")
    with pytest.raises(UsageError, match="it raised ZeroDivisionError: division by zero"):
        find(f"{file('1 / 0', 'bad.py')}:net")


def test_paths_of_functions():
    assert path_of("a.b:C(1)") == "a.b:C(1)"
    assert path_of(files.read) == "align.cases.files:read"  # of a package
    assert path_of(test_paths_of_functions) == f"{__file__}:test_paths_of_functions"
    with pytest.raises(UsageError, match="not a lambda or inner function"):
        path_of(lambda: None)
