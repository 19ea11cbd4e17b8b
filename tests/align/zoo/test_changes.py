"""The shipped changes fit the installed packages, and are made in copies that work outside their package."""

import ast
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from align.case import ALONE, Case
from align.cases import files, inputs
from align.errors import UsageError
from align.mutate.patch import Mutant, changed_text
from align.zoo.changes import FOLDER, RELATIVE, Changes, absolute, changed, shipped, source

SHIPPED = shipped()
PAIRS = {name: case for file in ("models.toml", "layers.toml") for name, case in files.read(FOLDER / file).items()}


def case(port: str = "paddle.vision.models:alexnet", name: str = "alexnet") -> Case:
    given = {"inputs": inputs.read(["2,3"]), "loss": None, "pair": True, "steps": ALONE}
    return Case(name=name, reference="torch.nn:ReLU", port=port, build={}, **given)


@pytest.mark.parametrize("patch", SHIPPED.patches, ids=lambda patch: patch.id)
def test_a_shipped_change_fits_the_installed_file_and_leaves_python(patch):
    ast.parse(absolute(changed_text(patch, source(patch.file)), patch.module.rpartition(".")[0]))
    assert patch.why


@pytest.mark.parametrize("patch", SHIPPED.patches, ids=lambda patch: patch.id)
def test_a_shipped_change_belongs_to_a_pair(patch):
    assert any(patch.why in SHIPPED.told(pair) for pair in PAIRS.values())


@pytest.mark.parametrize("name", SHIPPED.written)
def test_a_pair_written_otherwise_stands_beside_one_of_the_same_reference(name):
    assert SHIPPED.applied(PAIRS[name], FOLDER) == SHIPPED.written[name]
    assert PAIRS[name].port != SHIPPED.written[name].port
    assert SHIPPED.told(PAIRS[name]) == SHIPPED.written[name].summary != ""


def test_a_users_pair_of_the_same_name_is_no_business_of_the_shipped_changes(tmp_path):
    mine = case(port="my_port:alexnet")
    assert SHIPPED.told(mine) == ""
    assert SHIPPED.applied(mine, tmp_path) is None
    assert Changes().applied(case(), tmp_path) is None


def test_the_copy_keeps_its_lines_and_has_no_relative_import(tmp_path):
    made = SHIPPED.applied(PAIRS["mobilenet_v3_small"], tmp_path)
    path, _, name = made.port.partition(":")
    text, before = Path(path).read_text(), source("paddle/vision/models/mobilenetv3.py")
    assert name == "mobilenet_v3_small"
    assert not RELATIVE.search(text)
    assert "from paddle.vision.ops import ConvNormActivation" in text
    differing = [a for a, b in zip(before.splitlines(), text.splitlines(), strict=True) if a != b]
    assert len(differing) == 3 - ("from ._utils" not in before)


@given(st.lists(st.sampled_from(["a", "b", "c", "d"]), min_size=2, max_size=4), st.data())
def test_relative_imports_are_written_out(package, data):
    dots = data.draw(st.integers(1, len(package)))
    rest = data.draw(st.sampled_from(["", "x", "x.y"]))
    wanted = ".".join([*package[: len(package) - dots + 1], *([rest] if rest else [])])
    text = f"    from {'.' * dots}{rest} import (\n        thing,\n    )\n"
    assert absolute(text, ".".join(package)) == f"    from {wanted} import (\n        thing,\n    )\n"


def patch(**fields) -> Mutant:
    given = {"id": "p", "step": "forward", "file": "paddle/vision/models/alexnet.py", "find": "ReLU", "replace": "x"}
    return Mutant(**{**given, **fields})


@pytest.mark.parametrize(
    ("patches", "told"),
    [
        ([patch(file="paddle/vision/models/vgg.py")], "its port is in paddle.vision.models.alexnet"),
        ([patch(), patch(file="paddle/vision/models/vgg.py")], "its port is in paddle.vision.models.alexnet"),
        ([patch(find="no such text")], "holds the text to find 0 times, not 1"),
    ],
)
def test_a_change_that_does_not_fit_is_one_message(patches, told, tmp_path):
    with pytest.raises(UsageError) as caught:
        changed(case(port="paddle.vision.models.alexnet:alexnet"), patches, tmp_path)
    assert told in str(caught.value)


def test_a_file_that_is_not_installed_is_named():
    with pytest.raises(UsageError, match=r"no_such_package/x\.py: no such file of an installed package"):
        source("no_such_package/x.py")
