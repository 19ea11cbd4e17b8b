"""The first act of a loop that is not the reference's."""

import pytest

from align.locate.acts import acted_otherwise, first_difference
from align.record.acts import Act
from align.record.fingerprint import of_number
from align.record.line_trace import LineTrace
from align.record.source import Place

CODE = """\
def fit(batches):
    for batch in batches:
        forward(batch)
        backward()
    step()
    clear()
    return None
"""
LINES = {"forward": 3, "backward": 4, "step": 5, "clear": 6}


@pytest.fixture
def trace(tmp_path):
    """A trace of these acts, each at its line of `CODE`; `kind:detail`, `kind=value`."""
    file = tmp_path / "loop.py"
    file.write_text(CODE)

    def of(*told, **facts):
        acts = []
        for word in told:
            kind, _, detail = word.partition(":")
            kind, _, value = kind.partition("=")
            line = LINES[kind]
            place = Place(str(file), line, line, CODE.splitlines()[line - 1].strip())
            acts.append(Act(kind, detail, of_number(float(value)) if value else None, f"{kind}/0", place))
        return LineTrace(acts=acts, **facts)

    return of


WHOLE = ("forward=1", "backward=3", "step", "clear:none")


@pytest.mark.parametrize(
    ("acts", "found", "line", "told"),
    [
        (WHOLE[:3], (3, "missing"), 6, "does not do what the reference does here: it clears the gradients"),
        ((*WHOLE[:2], *WHOLE[3:]), (2, "missing"), 5, "does not do what the reference does here: it updates"),
        ((*WHOLE[:2], "step", *WHOLE[2:]), (3, "extra"), 5, "updates the parameters where the reference clears"),
        ((*WHOLE, "clear:none"), (4, "extra"), 6, "clears the gradients, the reference does not"),
        ((*WHOLE[:3], "clear:zero"), (3, "detail"), 6, "clears the gradients: zero, in the reference none"),
        (("forward=2", *WHOLE[1:]), (0, "value"), 2, "runs the model on another batch than the reference"),
        (("forward=1", "backward=4", *WHOLE[2:]), (1, "value"), None, None),
    ],
)
def test_the_first_difference_and_its_line(trace, acts, found, line, told):
    port, reference = trace(*acts), trace(*WHOLE)
    assert first_difference(port, reference) == found
    divergence = acted_otherwise("train_align", port, reference)
    assert (divergence and divergence.port.line) == line
    if told:
        assert told in divergence.what


def test_equal_acts_are_no_difference(trace):
    assert first_difference(trace(*WHOLE), trace(*WHOLE)) is None
    assert acted_otherwise("train_align", trace(*WHOLE), trace(*WHOLE)) is None


def test_what_a_port_did_not_do_because_it_raised_is_no_finding(trace):
    assert first_difference(trace(*WHOLE[:2], raised={"told": "KeyError"}), trace(*WHOLE)) is None


def test_traces_without_acts(trace):
    assert first_difference(trace(), trace()) is None


def test_acts_come_back_from_a_file(trace, tmp_path):
    from align.record.line_trace import read

    whole = trace(*WHOLE)
    whole.write(tmp_path / "trace.json")
    assert read(tmp_path / "trace.json").acts == whole.acts
