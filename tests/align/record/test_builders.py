"""From the text of a builder's path to what it names; each way to get it wrong is one message."""

import sys

import pytest

from align.errors import UsageError
from align.record.builders import Function, resolve

NET = """
class Net:
    def __init__(self, width, *, bias=True):
        self.width, self.bias = width, bias
    class Inner:
        pass
def double(x, factor=2):
    return x * factor
"""


@pytest.fixture
def net(tmp_path):
    """A file that defines a model; its module is forgotten afterwards."""
    path = tmp_path / f"net_{tmp_path.name.replace('-', '_')}.py"
    path.write_text(NET)
    yield path
    sys.modules.pop(path.stem, None)


def test_modules_files_attributes_and_arguments(net):
    assert resolve("json:dumps") is __import__("json").dumps
    assert resolve("os:path.join") is __import__("os").path.join
    made = resolve(f"{net}:Net(3, bias=False)")()
    assert (made.width, made.bias) == (3, False)
    assert resolve(f"{net}:Net.Inner").__name__ == "Inner"
    assert resolve(f"{net}:Net((1, [2.5, None]), bias='x')")().width == (1, [2.5, None])


def test_dots_make_a_function_the_model_itself(net):
    made = resolve(f"{net}:double(..., 5)")
    assert isinstance(made, Function)
    assert made(4) == 20
    assert resolve(f"{net}:double(..., factor=3)")(4) == 12
    assert resolve(f"{net}:double(...)")(4) == 8


BAD = [
    ("json", "expected package.module:name or file.py:name"),
    ("json:", "expected package.module:name"),
    ("json:nothing", "json has no 'nothing'"),
    ("no_such_package.models:net", "no module 'no_such_package'; check the import path and the working directory"),
    ("nowhere/port.py:Net", "no such file; give a Python file as folder/port.py:Net"),
    ("json:dumps(open)", "what stands in brackets must be literals, as in name(10, bias=False)"),
    ("json:dumps(", "must be literals"),
]


@pytest.mark.parametrize(("path", "told"), BAD)
def test_a_wrong_path_is_one_message(path, told):
    with pytest.raises(UsageError) as caught:
        resolve(path)
    assert str(caught.value).startswith(path.partition(".py:")[0])
    assert told in str(caught.value)


def test_a_file_that_imports_what_is_not_there_says_what(tmp_path):
    path = tmp_path / "lacks_a_module.py"
    path.write_text("import no_such_module_at_all")
    with pytest.raises(UsageError, match="it imports 'no_such_module_at_all', which is not there"):
        resolve(f"{path}:Net")
    assert "lacks_a_module" not in sys.modules


def test_two_files_of_one_name_are_not_mixed_up(net, tmp_path):
    resolve(f"{net}:Net")
    other = tmp_path / "other" / net.name
    other.parent.mkdir()
    other.write_text(NET)
    with pytest.raises(UsageError, match=f"a module named '{net.stem}' is loaded from .*; give the file another name"):
        resolve(f"{other}:Net")
