"""`align diff`: recordings made earlier or elsewhere, and two files of any project."""

import json
import os
import shutil

import numpy as np
import pytest

from align.cli import main
from align.record.safe_pickle import save_dictionary

CASE = "recordings/pit_probe"


@pytest.fixture
def diff(capsys):
    """Run the command in this process; the answer is the exit code, standard output and standard error."""

    def call(*arguments):
        code = main(["diff", *map(str, arguments)])
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        return code, printed.out, printed.err

    return call


@pytest.fixture(scope="module")
def apart(finished, tmp_path_factory):
    """The recordings of a run as they would lie after each side was recorded on a machine of its own."""
    folders = {}
    for side in ("torch", "paddle"):
        folders[side] = tmp_path_factory.mktemp(side)
        for path in (finished[0] / CASE).glob(f"{side}-*"):
            shutil.copytree(path, folders[side] / path.name)
    return folders["torch"], folders["paddle"]


class TestRecordings:
    def test_of_one_folder(self, diff, finished):
        out, _ = finished
        code, printed, _ = diff(out)
        assert code == 0
        assert "aligned" in printed

    def test_the_verdict_is_the_one_of_the_run(self, diff, finished, tmp_path):
        out, _ = finished
        code, printed, _ = diff(out, "--json", "--out", tmp_path / "new")
        told, before = json.loads(printed), json.loads((out / "verdict.json").read_text())
        assert code == 0
        assert told == before == json.loads((tmp_path / "new/verdict.json").read_text())
        assert (tmp_path / "new/rows.jsonl").read_bytes() == (out / "rows.jsonl").read_bytes()
        written = ["junit.xml", "report.html", "rows.jsonl", "summary.md", "verdict.json"]
        assert sorted(path.name for path in (tmp_path / "new").iterdir() if path.name != ".lock") == written

    def test_of_two_folders(self, diff, apart):
        code, printed, _ = diff(*apart, "--json")
        told = json.loads(printed)
        assert (code, told["verdict"]) == (0, "aligned")
        assert [step["step"] for step in told["steps"]] == ["data", "weights", "forward", "metric", "loss", "bp_align"]

    def test_a_folder_that_lacks_a_side(self, diff, apart):
        code, _, told = diff(apart[0])
        assert code == 2
        assert "no recording of the paddle side; record it with `align record --side paddle`" in told
        code, _, told = diff(apart[1], apart[0])
        assert code == 2
        assert "no recording of the torch side" in told

    def test_one_side_with_itself(self, diff, apart):
        """A device against another, a version against another."""
        code, printed, _ = diff(apart[0], apart[0], "--json")
        assert code == 0
        assert all(step["worst"]["max_abs"] == 0 for step in json.loads(printed)["steps"])

    def test_without_the_twins(self, diff, apart, tmp_path):
        """What rounds cannot be judged without the truth, and is not let pass."""
        for folder in apart:
            for path in folder.glob("*-float32-*"):
                shutil.copytree(path, tmp_path / path.name)
        code, printed, _ = diff(tmp_path, "--json")
        told = json.loads(printed)
        assert (code, told["verdict"], told["blamed_step"]) == (1, "misaligned", "forward")
        assert {step["step"]: step["verdict"] for step in told["steps"]}["weights"] == "aligned"

    def test_the_newest_of_each_is_taken(self, diff, apart, tmp_path):
        for folder in apart:
            for path in folder.iterdir():
                shutil.copytree(path, tmp_path / path.name)
        (older,) = tmp_path.glob("paddle-cpu-float32-*")
        broken = older.with_name(f"{older.name[:-8]}00000000")
        shutil.copytree(older, broken)
        (broken / "forward.tensors").write_bytes(b"")
        for seconds, code in ((-1, 0), (1, 2)):
            now = (older / "manifest.json").stat().st_mtime + seconds
            os.utime(broken / "manifest.json", (now, now))
            assert diff(tmp_path)[0] == code

    def test_a_half_recording_is_not_seen(self, diff, apart, tmp_path):
        for folder in apart:
            for path in folder.iterdir():
                shutil.copytree(path, tmp_path / f".partial-{path.name}")
        code, _, told = diff(tmp_path)
        assert (code, told) == (
            2,
            f"align: error: {tmp_path}: no recording in it; make one with `align record` or `align run`\n",
        )

    def test_fixed(self, diff, finished):
        out, _ = finished
        code, printed, _ = diff(out, "--fixed", "1e-12", "--json")
        assert (code, json.loads(printed)["verdict"]) == (1, "misaligned")
        rows = {step["step"]: step["verdict"] for step in json.loads(printed)["steps"]}
        assert (rows["weights"], rows["forward"]) == ("aligned", "misaligned")
        code, printed, _ = diff(out, "--fixed", "1e-4", "--json")
        told = json.loads(printed)
        assert (code, told["verdict"]) == (1, "vacuous"), "gradients below it could be anything"
        assert told["blind"] == ["gradient distillation_soft/grad_kd"]

    def test_a_waiver(self, diff, apart, tmp_path):
        waivers = tmp_path / "waivers.toml"
        entry = '[[waiver]]\ncase = "pit_*"\nstep = "forward"\nrow = "logits"\nreason = "r"\nexpires = 2099-01-01\n'
        waivers.write_text(entry)
        code, printed, _ = diff(*apart, "--waivers", waivers, "--json")
        assert code == 1
        assert "is stale" in json.loads(printed)["complaints"][0]

    @pytest.mark.parametrize(
        ("arguments", "code", "message"),
        [
            (["/nowhere"], 2, "/nowhere: no such file or folder"),
            (["{out}", "/nowhere"], 2, "/nowhere: no such file or folder"),
            (["{out}", "--case", "pit_b"], 2, "no recording of case pit_b in it"),
            (["{empty}"], 2, "no recording in it"),
            (["{out}", "{out}/forward_torch.npy"], 2, "no recording in it"),
            (["{out}/forward_torch.npy"], 2, "a file is compared with a second one"),
            (["{out}/forward_torch.npy", "{out}"], 2, "there is no such file"),
            (["{out}", "--waivers", "/nowhere.toml"], 2, "/nowhere.toml: cannot read it"),
        ],
    )
    def test_what_cannot_be_compared(self, diff, finished, tmp_path, arguments, code, message):
        filled = [argument.format(out=finished[0], empty=tmp_path) for argument in arguments]
        found, _, told = diff(*filled)
        assert found == code, told
        assert message in told
        assert told.count("\n") == 1


class TestOneSideAtATime:
    @pytest.fixture(scope="class")
    @classmethod
    def folders(cls, align, reference_alone, tmp_path_factory):
        """The reference recorded in one folder; that folder copied, and the port recorded into the copy."""
        (here, result), there = reference_alone, tmp_path_factory.mktemp("there") / "copy"
        assert result.stdout.count("recorded: ") == 2
        shutil.copytree(here, there)
        result = align(
            "record", "weights", "forward", "--case", "pit_probe", "--side", "paddle", "--out", there, "--json"
        )
        assert result.returncode == 0, result.stderr
        assert result.stdout == ""
        assert result.stderr.count(f"recorded: {there}") == 2
        return here, there

    def test_compared_afterwards(self, diff, folders):
        here, there = folders
        assert diff(there)[0] == 0
        assert diff(here, there)[0] == 0
        assert diff(there, "--fixed", "1e-4")[0] == 0
        assert not list(there.rglob("*diff.log"))

    def test_of_another_seed_they_are_incomparable(self, diff, folders, align, tmp_path):
        arguments = ("weights", "--case", "pit_probe", "--side", "torch", "--seed", "5", "--out", tmp_path)
        result = align("record", *arguments)
        assert result.returncode == 0, result.stderr
        assert f"recorded: {tmp_path}" in result.stdout
        code, _, told = diff(tmp_path, folders[1])
        assert code == 4
        assert "have different seed: 20210330 against 5; record both from the same sources" in told


def summarised(align, out):
    result = align("run", "weights", "forward", "--case", "pit_probe", "--out", out, "--keep", "summary")
    assert result.returncode == 0, result.stdout + result.stderr
    return out


def test_a_summary_can_be_kept_and_says_that_it_is_one(align, diff, tmp_path):
    out = summarised(align, tmp_path / "out")
    sizes = {path.stat().st_size for path in (out / CASE).glob("*-cpu-*/*.tensors")}
    assert sizes == {0}
    code, _, told = diff(out)
    assert code == 2
    assert "was kept as a summary only; record again with --keep full" in told


class TestFiles:
    @pytest.fixture
    def pair(self, tmp_path, diff):
        """Write two dictionaries as reprod_log does and compare them."""

        def call(reference, port, *options):
            paths = tmp_path / "a.npy", tmp_path / "b.npy"
            for path, content in zip(paths, (reference, port), strict=True):
                if isinstance(content, bytes):
                    path.write_bytes(content)
                else:
                    save_dictionary(path, content)
            return diff(*paths, *options)

        return call

    LOGITS = np.random.default_rng(0).standard_normal((4, 10)).astype(np.float32)

    def test_aligned(self, pair):
        code, printed, _ = pair({"logits": self.LOGITS}, {"logits": self.LOGITS * np.float32(1 + 1e-6)})
        assert code == 0
        assert printed.splitlines()[0].startswith("aligned    logits max ")
        assert "[assumed, no twin]" in printed
        assert printed.splitlines()[-1].startswith("aligned: 1 rows, 0 bad (reference: ")

    def test_each_row_has_its_facts(self, pair):
        port = self.LOGITS.copy()
        port[2, 3] = np.nextafter(port[2, 3], np.float32(np.inf))
        off = float(port[2, 3]) - float(self.LOGITS[2, 3])
        _, printed, _ = pair({"logits": self.LOGITS}, {"logits": port})
        assert f"max {off:.3g} at (2, 3) mean {off / 40:.3g} rel " in printed
        assert f" cos 1 1 ulp, passes at {off:.3g} [assumed, no twin]" in printed
        (row,) = json.loads(pair({"logits": self.LOGITS}, {"logits": port}, "--json")[1])["rows"]
        assert (row["index"], row["ulp"], row["cosine"], row["max_abs"]) == ([2, 3], 1, pytest.approx(1), off)

    def test_what_reprod_log_wrote(self, diff, finished):
        out, _ = finished
        assert diff(out / "forward_torch.npy", out / "forward_paddle.npy")[0] == 0

    @pytest.mark.parametrize(
        ("reference", "port", "reason"),
        [
            (LOGITS, LOGITS + np.float32(1e-3), "relative Frobenius difference"),
            (LOGITS, LOGITS.T, "shape: (10, 4) against (4, 10)"),
            (np.array(7.25), np.array([7.25]), "shape: (1,) against ()"),
            (np.array(7.25), np.array(7.25, np.float32), "dtype: float32 against float64"),
            (LOGITS, np.where(LOGITS[1, 1] == LOGITS, np.nan, LOGITS), "nonfinite: nan against"),
            (np.full(3, np.nan), np.zeros(3), "nonfinite: 0.0 against nan"),
            (np.zeros(3), np.full(3, 1e-9), "relative Frobenius difference inf exceeds 0"),
            (np.array([0, 255], np.uint8), np.array([255, 255], np.uint8), "exceeds 0"),
        ],
    )
    @pytest.mark.parametrize("options", [(), ("--json",)])
    def test_misaligned(self, pair, reference, port, reason, options):
        code, printed, told = pair({"x": reference, "same": np.ones(3)}, {"x": port, "same": np.ones(3)}, *options)
        assert (code, told) == (1, "")
        if options:
            found = json.loads(printed)
            assert (found["schema"], found["verdict"]) == ("align-files/1", "misaligned")
            rows = {row["name"]: row for row in found["rows"]}
            assert (rows["same"]["verdict"], rows["x"]["verdict"]) == ("aligned", "misaligned")
            assert reason in rows["x"]["reason"]
        else:
            assert reason in printed
            assert printed.splitlines()[-1].startswith("misaligned: 2 rows, 1 bad")

    def test_a_missing_key(self, pair):
        code, printed, _ = pair({"a": np.ones(2), "b": np.ones(2)}, {"a": np.ones(2), "c": np.ones(2)})
        assert code == 1
        assert [line.split()[:2] for line in printed.splitlines()[:-1]] == [
            ["aligned", "a"],
            ["missing", "c"],
            ["missing", "b"],
        ]

    def test_nested(self, pair):
        code, printed, _ = pair({"loss": {"0": np.array(1.0)}}, {"loss": {"0": np.array(2.0)}})
        assert code == 1
        assert "misaligned loss/0" in printed

    def test_fixed(self, pair):
        off = {"x": self.LOGITS + np.float32(1e-3)}
        assert pair({"x": self.LOGITS}, off, "--fixed", "1e-2")[0] == 0
        code, printed, _ = pair({"x": self.LOGITS}, off, "--fixed", "1e-4")
        assert code == 1
        assert "mean absolute difference 0.001 exceeds 0.0001 (fixed)" in printed

    @pytest.mark.parametrize("tolerance", ["nan", "inf", "-1", "much"])
    def test_a_tolerance_that_is_none(self, pair, tolerance, capsys):
        with pytest.raises(SystemExit) as caught:
            pair({"x": self.LOGITS}, {"x": self.LOGITS}, f"--fixed={tolerance}")
        assert caught.value.code == 2
        assert "--fixed" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("reference", "port"),
        [({}, {}), ({"x": np.ones((0, 3))}, {"x": np.ones((0, 3))}), ({"a": np.ones(2)}, {"b": np.ones(2)})],
    )
    @pytest.mark.parametrize("options", [(), ("--json",)])
    def test_nothing_compared(self, pair, reference, port, options):
        code, printed, told = pair(reference, port, *options)
        assert code == 5
        assert "have no element in common to compare" in told
        if options:
            assert json.loads(printed)["verdict"] == "empty"

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "the file is empty"),
            (b"\x93NUMPY\x01\x00", "truncated"),
            (b"not an npy file at all", "this is no .npy file"),
            (b"\x80\x04cos\nsystem\n(S'touch owned'\ntR.", "this is no .npy file"),
        ],
    )
    def test_a_corrupt_file_is_named(self, pair, tmp_path, content, message):
        for first, second, name in (({"x": np.ones(2)}, content, "b.npy"), (content, {"x": np.ones(2)}, "a.npy")):
            code, _, told = pair(first, second)
            assert code == 2
            assert f"{tmp_path / name}: " in told
            assert message in told

    def test_a_plain_array(self, pair, tmp_path):
        np.save(tmp_path / "plain.npy", np.ones(3))
        code, _, told = pair({"x": np.ones(3)}, (tmp_path / "plain.npy").read_bytes())
        assert code == 2
        assert "holds one plain array (dtype <f8), not a dictionary" in told

    def test_what_is_no_number_is_named_with_its_file(self, tmp_path, diff):
        np.save(tmp_path / "a.npy", {"note": "text"}, allow_pickle=True)
        np.save(tmp_path / "b.npy", {"note": np.ones(1)}, allow_pickle=True)
        code, _, told = diff(tmp_path / "a.npy", tmp_path / "b.npy")
        assert code == 2
        assert f"{tmp_path / 'a.npy'}: note: holds a str; only arrays of numbers can be compared" in told

    def test_a_file_that_would_run_something(self, tmp_path, diff):
        class Evil:
            def __reduce__(self):
                return (open, (str(tmp_path / "owned"), "w"))

        np.save(tmp_path / "a.npy", {"x": Evil()}, allow_pickle=True)
        np.save(tmp_path / "b.npy", {"x": np.ones(1)}, allow_pickle=True)
        for pair in ((tmp_path / "a.npy", tmp_path / "b.npy"), (tmp_path / "b.npy", tmp_path / "a.npy")):
            code, _, told = diff(*pair)
            assert code == 2
            assert "Nothing in it was run" in told
        assert not (tmp_path / "owned").exists()
