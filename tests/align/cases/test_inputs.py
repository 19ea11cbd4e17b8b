"""Inputs from their short form: shapes, types, bounds, files and names; each way to get it wrong is one message."""

import numpy as np
import pytest

from align.cases.inputs import read
from align.errors import UsageError


@pytest.mark.parametrize(
    ("spec", "fields"),
    [
        ("2,3,32,32", {"name": "0", "shape": (2, 3, 32, 32), "fill": "photographs", "dtype": "float32"}),
        ("4,7", {"shape": (4, 7), "fill": "normal"}),
        ("ids=2,128:int64<30000", {"name": "ids", "fill": "integers", "dtype": "int64", "high": 30000}),
        ("mask=2,9:bool", {"name": "mask", "argument": "mask", "fill": "flags", "dtype": "bool"}),
        ("batch.ids=2,9:int32<5", {"name": "batch.ids", "argument": "batch.ids", "dtype": "int32"}),
    ],
)
def test_a_short_form_says_all_of_an_input(spec, fields):
    (found,) = read([spec])
    assert {name: getattr(found, name) for name in fields} == fields


def test_a_file_lies_beside_the_case_and_gives_its_shape(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((3, 4), np.float32))
    (found,) = read(["x=@x.npy"], tmp_path)
    assert (found.fill, found.shape, found.file) == ("file", (3, 4), str(tmp_path / "x.npy"))


@pytest.mark.parametrize(
    ("specs", "told"),
    [
        ([], "give every input of the model"),
        (["2x3"], "--input 2x3: expected"),
        (["2,0,3"], "an axis of size 0 leaves nothing to compare"),
        (["2,3:int64"], "say below which number they are, as in int64<30000"),
        (["2,3<5"], "only int64 and int32 have an upper end"),
        (["2,3:float16"], "type 'float16' is none of float32, bool, int64, int32; floating inputs follow --dtype"),
        (["a=2", "a=3"], "a is given twice"),
        (["@nowhere.npy"], "cannot read it: "),
    ],
)
def test_a_wrong_form_is_one_message(specs, told):
    with pytest.raises(UsageError) as caught:
        read(specs)
    assert told in str(caught.value)
