"""`align check` on a decoder: a mask with infinities, tables that constructors make, helpers, a loop, an exception."""

import pytest

BUGS = {
    "a-helper-not-called": ("q, k = rotated(q), rotated(k)", "q, k = rotated(q), k"),
    "a-default": ("def rotated(x, base=100.0):", "def rotated(x, base=10.0):"),
    "axis-behind-infinities": ("F.softmax(scores, -1)", "F.softmax(scores, -2)"),
    "saved-table": ("places.unsqueeze(1) - places.unsqueeze(0)", "places.unsqueeze(0) - places.unsqueeze(1)"),
    "table-that-is-not-saved": ('float("-inf")), 1)', 'float("-inf")), 2)'),
    "tensor-not-handed-over": ("self.attention(x, self.allowed)", "self.attention(x)"),
    "order-of-a-loop": ("for time in range(x.shape[1]):", "for time in reversed(range(x.shape[1])):"),
    "round-left-out-and-then-raises": ("for time in range(x.shape[1]):", "for time in range(1, x.shape[1]):"),
    "raises": ("reshape(x.shape))", "reshape([2, 2, 2]))"),
}


@pytest.fixture(scope="module")
def verdict(checked, root, tmp_path_factory):
    """The verdict on a port with a text replaced, and the replaced text's line."""
    models, folder = root / "tests/models", tmp_path_factory.mktemp("causal")
    text = (models / "causal_paddle.py").read_text()

    def of(find, replacement):
        assert text.count(find) == 1
        line = text[: text.index(find)].count("\n") + 1
        port = folder / f"port_{line}_{abs(hash(replacement))}.py"
        port.write_text(text.replace(find, replacement))
        return checked(f"{models}/causal_torch.py:Net", f"{port}:Net", "--input", "3,5:int64<30"), line

    return of


def test_the_right_port_is_aligned(verdict):
    result, _ = verdict("import paddle\n", "import paddle  # as it was\n")
    assert result.verdict == "aligned", [row for step in result.steps for row in step.failing]
    assert "built/attention.index" in {row.name for row in result.rows}


@pytest.mark.parametrize("bug", BUGS)
def test_the_line_is_found(verdict, bug):
    result, line = verdict(*BUGS[bug])
    assert (result.verdict, result.blamed_step) == ("misaligned", "forward")
    found = result.divergences[0].as_json()["port"]
    places = [place for place in (found, found["built"]) if place]
    assert any(place["line"] <= line <= place["end_line"] for place in places), (line, found)
