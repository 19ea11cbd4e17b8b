"""The folder of classes tells apart what lists of images are sorted by."""

import pytest

from align.plan import folders


@pytest.fixture
def usable(tmp_path):
    folders.make(tmp_path)
    return tmp_path / "usable"


def test_every_file_is_there_and_empty(usable):
    found = {path.relative_to(usable).as_posix(): path.stat().st_size for path in usable.rglob("*") if path.is_file()}
    assert found == dict.fromkeys(folders.FILES, 0)


def test_age_name_and_letter_case_give_three_orders(usable):
    classes = [path for path in usable.iterdir() if not path.name.startswith(".")]
    orders = [
        [path.name for path in sorted(classes, key=key)]
        for key in (
            lambda p: p.name,
            lambda p: p.stat().st_mtime_ns,
            lambda p: p.name.lower(),
            lambda p: int(p.name, 36),
        )
    ]
    assert len({tuple(order) for order in orders}) == len(orders)
    assert orders[0] != orders[1][::-1]


def test_what_cannot_be_used_is_there_too(usable):
    assert {path.name for path in usable.parent.iterdir()} == {"usable", *folders.UNUSABLE}
