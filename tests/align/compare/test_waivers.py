"""What may differ on record: covered, expired, without use; and formulas that are arithmetic and nothing else."""

import datetime

import numpy as np
import pytest

from align.compare.waivers import LONGEST, corrected, read
from align.errors import UsageError

TODAY = datetime.date(2026, 5, 1)

WAIVER = """
[[waiver]]
case = "{case}"
step = "{step}"
row = "{row}"
reason = "upstream bug 12"
expires = {expires}
"""

DEVIATION = """
[[deviation]]
case = "*"
step = "forward"
row = "{row}"
reason = "Paddle keeps the biased variance"
formula = "{formula}"
proof = "docs/deviations.md"
n = {n}
"""


@pytest.fixture
def waivers(tmp_path):
    """Read a waiver file made of tables, as on one fixed day."""

    def write(*tables):
        path = tmp_path / "waivers.toml"
        defaults = {"case": "toy", "step": "forward", "row": "x", "expires": "2026-06-30"}
        path.write_text("".join(WAIVER.format(**{**defaults, **table}) for table in tables))
        exceptions = read(path, None)
        exceptions.today = TODAY
        return exceptions

    return write


@pytest.fixture
def deviations(tmp_path):
    def write(formula="port * n / (n - 1)", row="x", n=49):
        path = tmp_path / "deviations.toml"
        path.write_text(DEVIATION.format(formula=formula, row=row, n=n))
        return read(None, path)

    return write


def wrong(bench):
    """A port that is off by a factor, in both types."""
    bench.port["x"] = bench.rounded("x", 2) * np.float32(2)
    bench.port_twin["x"] = bench.truth["x"] * 2
    return bench


class TestWaivers:
    def test_a_red_row_is_waived(self, bench, waivers):
        verdict = wrong(bench).verdict(waivers({}))
        (row,) = verdict.rows
        assert (row.verdict, row.waived, verdict.exit_code) == ("waived", "upstream bug 12", 0)
        assert row.reason.startswith("meaning"), "why it was red stays on record"

    def test_so_is_a_missing_and_an_insensitive_one(self, bench, waivers):
        bench.truth |= {"y": np.zeros(4), "z": np.ones(4)}
        bench.port["z"] = None
        verdict = bench.verdict(waivers({"row": "[yz]"}))
        assert {row.name: row.verdict for row in verdict.rows} == {"x": "aligned", "y": "waived", "z": "waived"}
        assert verdict.exit_code == 0

    @pytest.mark.parametrize("pattern", [{"row": "*"}, {"case": "t?y"}, {"step": "for*"}])
    def test_patterns(self, bench, waivers, pattern):
        assert wrong(bench).verdict(waivers(pattern)).exit_code == 0

    def test_until_the_end_of_its_last_day(self, bench, waivers):
        assert wrong(bench).verdict(waivers({"expires": str(TODAY)})).exit_code == 0

    def test_expired_it_covers_nothing_and_is_told(self, bench, waivers):
        verdict = wrong(bench).verdict(waivers({"expires": "2026-04-30"}))
        assert (verdict.rows[0].verdict, verdict.exit_code) == ("misaligned", 1)
        assert verdict.complaints == (
            "waivers.toml waiver 1: toy forward 'x' expired on 2026-04-30: fix the difference or renew it",
        )

    def test_expired_it_fails_even_where_nothing_is_red(self, bench, waivers):
        assert bench.verdict(waivers({"expires": "2026-04-30"})).exit_code == 1

    def test_unused_it_fails(self, bench, waivers):
        verdict = bench.verdict(waivers({}))
        assert (verdict.verdict, verdict.exit_code) == ("misaligned", 1)
        assert verdict.complaints == (
            "waivers.toml waiver 1: toy forward 'x' is stale: nothing that ran needed it; take it out",
        )

    def test_each_of_two_must_be_needed(self, bench, waivers):
        assert "waiver 2" in wrong(bench).verdict(waivers({}, {"row": "y"})).complaints[0]

    @pytest.mark.parametrize("elsewhere", [{"case": "pit_s"}, {"step": "loss"}])
    def test_of_another_case_or_step_it_is_no_concern(self, bench, waivers, elsewhere):
        assert bench.verdict(waivers(elsewhere)).exit_code == 0
        assert wrong(bench).verdict(waivers(elsewhere)).exit_code == 1

    def test_another_row_stays_red(self, bench, waivers):
        wrong(bench).truth["y"] = np.ones(4)
        bench.port["y"] = None
        verdict = bench.verdict(waivers({}))
        assert [row.verdict for row in verdict.rows] == ["waived", "missing"]
        assert verdict.exit_code == 1

    def test_names_with_brackets_are_matched_by_escapes(self, bench, waivers):
        bench.truth["a[0]"] = np.ones(4)
        bench.port["a[0]"] = None
        assert bench.verdict(waivers({"row": "a[[]0]"})).exit_code == 0


class TestDeviations:
    def biased(self, bench, n=49):
        """Paddle's running variance divides by n, PyTorch's by n - 1."""
        bench.truth["x"] = np.abs(bench.truth["x"])
        bench.port["x"] = (bench.rounded("x", 2, "float64") * (n - 1) / n).astype(np.float32)
        bench.port_twin["x"] = bench.truth["x"] * ((n - 1) / n)
        return bench

    def test_what_the_formula_brings_back_to_noise_is_noted(self, bench, deviations):
        verdict = self.biased(bench).verdict(deviations())
        (row,) = verdict.rows
        assert (row.verdict, row.reason) == ("noted", "Paddle keeps the biased variance")
        assert verdict.exit_code == 0
        assert row.meaning.ratio < 8

    def test_without_the_entry_it_is_red(self, bench):
        assert self.biased(bench).verdict().exit_code == 1

    def test_a_formula_that_explains_it_almost_is_not_enough(self, bench, deviations):
        verdict = self.biased(bench).verdict(deviations(n=50))
        assert verdict.rows[0].verdict == "misaligned"
        assert "deviation 1" in verdict.complaints[0], "it explained nothing, so it is stale as well"

    def test_a_right_formula_on_a_wrong_port(self, bench, deviations):
        self.biased(bench).port_twin["x"][5] *= 1 + 1e-9
        assert bench.verdict(deviations()).exit_code == 1

    def test_precision_must_come_back_too(self, bench, deviations):
        self.biased(bench)
        bench.port["x"] = bench.port["x"].astype(np.float16).astype(np.float32)
        assert bench.verdict(deviations()).exit_code == 1

    def test_stale_it_fails(self, bench, deviations):
        verdict = bench.verdict(deviations())
        assert (verdict.rows[0].verdict, verdict.exit_code) == ("aligned", 1)
        assert verdict.complaints[0].endswith("is stale: nothing that ran needed it; take it out")

    def test_a_missing_tensor_is_not_noted(self, bench, deviations):
        bench.port["x"] = None
        assert bench.verdict(deviations()).rows[0].verdict == "missing"

    def test_nor_one_of_another_shape(self, bench, deviations):
        bench.port["x"] = np.ones((1000, 1), np.float32)
        assert bench.verdict(deviations()).rows[0].verdict == "misaligned"

    def test_under_the_fixed_rule_the_formula_counts_as_well(self, bench, deviations):
        assert self.biased(bench, n=3).verdict(deviations(n=3), fixed=1e-3).rows[0].verdict == "noted"
        assert self.biased(bench, n=3).verdict(deviations(n=4), fixed=1e-3).rows[0].verdict == "misaligned"


class TestFormulas:
    @pytest.mark.parametrize(
        ("formula", "expected"),
        [
            ("port", 6.0),
            ("port * n / (n - 1)", 9.0),
            ("2.5 + port - 1", 7.5),
            ("(port + port) * 2", 24.0),
            ("  port * 1e-3", 6e-3),
        ],
    )
    def test_arithmetic(self, formula, expected):
        result = corrected({"formula": formula, "n": 3}, np.full((2, 2), 6.0))
        assert result.tolist() == [[expected] * 2] * 2

    @pytest.mark.parametrize(
        "formula",
        [
            "__import__('os').system('touch /tmp/owned')",
            "port.__class__",
            "port[0]",
            "port ** port",
            "port @ port",
            "port // 2",
            "port % 2",
            "port << 70",
            "-port",
            "(lambda: 1)()",
            "[port for port in [1]]",
            "port if 1 else 2",
            "port and 1",
            "port < 1",
            "f'{port}'",
            "'text' * 1000000",
            "(x := port)",
            "other",
            "formula",
            "reason * port",
            "port + True if 0 else port",
            "None",
            "port, port",
            "",
            "   ",
            "port +",
            "import os",
            "port\nport",
            "port\0",
            "((port",
            "1j * port",
        ],
    )
    def test_anything_else_is_refused(self, formula):
        with pytest.raises(UsageError, match="deviation formula"):
            corrected({"formula": formula, "n": 3, "reason": "text"}, np.ones((2, 2)))

    @pytest.mark.parametrize(
        ("formula", "message"),
        [("1 / 0 * port", "division by zero"), ("1", "does not depend on `port`"), ("n", "does not depend on `port`")],
    )
    def test_what_is_no_array_of_that_shape(self, formula, message):
        with pytest.raises(UsageError, match=f"deviation formula '{formula}': {message}".replace("*", ".")):
            corrected({"formula": formula, "n": 3}, np.ones((2, 2)))

    @pytest.mark.parametrize("formula", ["port / (n - n)", "9" * 190 + "* port", "port * n"])
    def test_infinity_is_a_value_like_any_other(self, formula):
        result = corrected({"formula": formula, "n": 1e300}, np.ones((2, 2), np.float32))
        assert result.astype(np.float32).tolist() == [[np.inf] * 2] * 2

    @pytest.mark.parametrize("formula", ["port" + " + 1" * 10_000, "(" * 10_000 + "port" + ")" * 10_000])
    def test_a_long_one_is_refused_before_it_is_read(self, formula):
        with pytest.raises(UsageError, match=f"longer than {LONGEST} characters"):
            corrected({"formula": formula}, np.ones(2))

    @pytest.mark.parametrize(
        "formula", ["port" + "+1" * 98, "(" * 98 + "port" + ")" * 97 + ")", "1" * 100 + "*" + "1" * 90 + "*port"]
    )
    def test_the_longest_that_is_read(self, formula):
        assert len(formula) <= LONGEST
        assert corrected({"formula": formula}, np.ones(2)).shape == (2,)

    def test_a_bad_formula_is_told_when_the_file_is_read(self, tmp_path):
        path = tmp_path / "deviations.toml"
        path.write_text(DEVIATION.format(formula="open('x')", row="x", n=1))
        with pytest.raises(UsageError, match=r"only . - . /, numbers, `port` and own numbers"):
            read(None, path)


class TestFiles:
    def test_none_is_none(self, bench):
        exceptions = read(None, None)
        assert (exceptions.waivers, exceptions.deviations) == ([], [])

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("[[waiver]", "not TOML"),
            ("waiver = 1", "expected only"),
            ("[waiver]\ncase = 'x'", "expected only"),
            ("[[waver]]\ncase = 'x'", "expected only .* found waver"),
            ("waiver = [1]", r"waiver 1: expected a \[\[waiver\]\] table, found 1"),
            ("waiver = ['case step row reason expires']", "waiver 1: expected a"),
            ("[[waiver]]\ncase = '*'", "waiver 1: lacks step, row, reason, expires"),
            (
                WAIVER.format(case="*", step="*", row="*", expires="'2026-01-01'"),
                "expires must be a date, not '2026-01-01'",
            ),
            (WAIVER.format(case="*", step="*", row="*", expires="2026-01-01T00:00:00"), "expires must be a date"),
            (
                WAIVER.format(case="*", step="*", row="*", expires="2026-01-01").replace('"*"', "7", 1),
                "case must be a str",
            ),
            ("\ufeff[[waiver]]", "not TOML"),
        ],
    )
    def test_a_bad_file_is_one_clear_error(self, tmp_path, text, message):
        path = tmp_path / "waivers.toml"
        path.write_text(text)
        with pytest.raises(UsageError, match=message) as caught:
            read(path, None)
        assert str(path) in str(caught.value)

    def test_bytes_that_are_no_text(self, tmp_path):
        (tmp_path / "w.toml").write_bytes(b"\xff\xfe")
        with pytest.raises(UsageError, match=r"w\.toml: not TOML"):
            read(tmp_path / "w.toml", None)

    @pytest.mark.parametrize("which", [0, 1])
    def test_a_missing_file(self, tmp_path, which):
        paths = [None, None]
        paths[which] = tmp_path / "nowhere.toml"
        with pytest.raises(UsageError, match=r"nowhere\.toml: cannot read it: No such file"):
            read(*paths)
