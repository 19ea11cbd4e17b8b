"""Source lines in a report: highlighted as what they are, wherever they are cut out."""

from align.report.source import listing

MODULE = '''def build():
    """Says a lot.

    Over several lines, with a quote: 'here.
    """
    value = transform(1)
    return value
'''


def place(path, line, code):
    return {"file": str(path), "line": line, "end_line": line, "code": code}


def test_a_line_below_the_middle_of_a_docstring_is_code(tmp_path):
    path = tmp_path / "module.py"
    path.write_text(MODULE)
    shown = listing(place(path, 6, "value = transform(1)"))
    by_number = {line["number"]: line for line in shown["lines"]}
    assert list(by_number) == [3, 4, 5, 6, 7]
    assert [number for number, line in by_number.items() if line["blamed"]] == [6]
    assert 'class="sd"' in by_number[4]["html"]
    assert 'class="mi">1<' in by_number[6]["html"] and "sd" not in by_number[6]["html"]
    assert 'class="k">return<' in by_number[7]["html"]


def test_a_file_that_has_changed_gives_the_recorded_line_alone(tmp_path):
    path = tmp_path / "module.py"
    path.write_text(MODULE)
    shown = listing(place(path, 6, "value = transform(2)"))
    assert [line["number"] for line in shown["lines"]] == [6]
    assert "2" in shown["lines"][0]["html"]
