"""Killed at any moment, a full disk, two runs at once, damaged files: later runs work, nothing half is believed."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from align.cli import main
from align.record import manifest

STEPS = ("weights", "forward")
CASE = "recordings/pit_probe"


def whole(out):
    """What anyone would take for a recording: each must be one."""
    found = [path.parent for path in (out / CASE).glob("[!.]*/manifest.json")]
    for folder in found:
        manifest.Recording(folder).verify()
    return found


class Run:
    """An `align run` that is going on, and the processes of its sides."""

    def __init__(self, root, out, moment):
        self.out, self.pattern = out, MOMENTS[moment]
        self.before, self.sides = set(self.matches()), {}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "align", "run", *STEPS, "--case", "pit_probe", "--out", str(out)],
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(root)},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def matches(self):
        return (self.out / CASE).glob(self.pattern)

    def wait(self):
        """Until something new has the moment's name; a run that ends before fails the test, as nothing was tried."""
        end = time.monotonic() + 120
        while not set(self.matches()) - self.before:
            assert self.process.poll() is None, "the run ended before: " + "".join(self.process.communicate())
            assert time.monotonic() < end
            time.sleep(0.002)
        for path in Path("/proc").glob("[0-9]*"):
            try:
                parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
                command = (path / "cmdline").read_bytes().split(b"\0")
            except OSError:  # it ended meanwhile
                continue
            if parent == self.process.pid and b"align.record.worker" in command:
                self.sides[command[-2].decode()] = path
        return self

    def gone(self):
        """Whether all processes of the sides end within half a minute."""
        end = time.monotonic() + 30
        while any(path.exists() for path in self.sides.values()) and time.monotonic() < end:
            time.sleep(0.05)
        return not any(path.exists() for path in self.sides.values())


# What has just appeared in the folder of the case at the moment of the kill.
MOMENTS = {
    "the plan is made": ".partial-plan-*/plan.tensors",
    "the first step is recorded": ".partial-torch-cpu-float32-*/weights.tensors",
    "the port records": ".partial-paddle-cpu-float32-*/forward.tensors",
    "the twin is recorded": ".partial-torch-cpu-float64-*/forward.tensors",
    "one recording of four has its name": "torch-cpu-float32-*/manifest.json",
    "all have, and reports are written": "../../.partial-reports-*/weights_*.npy",
}
FEW = ("the plan is made", "one recording of four has its name")
NAMED = {"one recording of four has its name": 1, "all have, and reports are written": 4}  # recordings, at least


@pytest.fixture(scope="module")
def killed_in(tmp_path_factory):
    """One folder for all kills: each meets what the earlier ones left."""
    return tmp_path_factory.mktemp("killed")


@pytest.mark.parametrize(
    "moment", [pytest.param(m, marks=() if m in FEW else pytest.mark.slow) for m in MOMENTS], ids=MOMENTS
)
def test_the_harness_is_killed_when(root, killed_in, moment):
    run = Run(root, killed_in, moment).wait()
    assert len(run.sides) == 2
    run.process.kill()
    run.process.communicate()
    assert run.gone(), "a side's process outlived the harness by half a minute"
    assert len(whole(killed_in)) >= NAMED.get(moment, 0)
    assert not (killed_in / "verdict.json").exists()


@pytest.mark.parametrize(
    ("side", "moment"),
    [
        ("torch", "the twin is recorded"),
        ("paddle", "the port records"),
        pytest.param("torch", "the plan is made", marks=pytest.mark.slow),
        pytest.param("paddle", "the plan is made", marks=pytest.mark.slow),
        pytest.param("torch", "the port records", marks=pytest.mark.slow),
        pytest.param("paddle", "all have, and reports are written", marks=pytest.mark.slow),
    ],
)
def test_a_side_is_killed(root, killed_in, side, moment):
    run = Run(root, killed_in, moment).wait()
    os.kill(int(run.sides[side].name), 9)
    printed, told = run.process.communicate(timeout=60)
    assert run.process.returncode == 3, printed + told
    assert f"align: error: the {side} process ended during" in told
    assert "(status -9)" in told
    assert "Traceback" not in told
    assert run.gone()
    whole(killed_in)
    assert not list(killed_in.rglob(".partial-*")), "what failed is of no use to anyone"
    assert not (killed_in / "verdict.json").exists()


def test_a_later_run_works_and_leaves_nothing_of_the_killed_ones(align, killed_in):
    for litter in (".partial-torch-cpu-float32-0", ".partial-plan-1", ".partial-weights-2"):
        (killed_in / CASE / litter).mkdir(parents=True)
        (killed_in / CASE / litter / "manifest.json").write_text("{}")
    result = align("run", *STEPS, "--case", "pit_probe", "--out", killed_in)
    assert result.returncode == 0, result.stdout + result.stderr
    assert len(whole(killed_in)) == 4
    # A plan holds a hidden file on purpose: no class of images.
    assert not [path for path in killed_in.rglob(".*") if path.name != ".lock" and "classes" not in path.parts]
    assert len(list((killed_in / CASE).glob("plan-*"))) == 1
    assert main(["diff", str(killed_in)]) == 0


NOTES = ("notes.txt", f"{CASE}/mine/notes.txt", "recordings/old.txt")


@pytest.fixture(scope="module")
def into_others(finished, align, tmp_path_factory):
    """A run into the results of an earlier one, among what else may lie there: its folder, and what it printed."""
    out = tmp_path_factory.mktemp("others")
    shutil.copytree(finished[0] / "recordings", out / "recordings")
    (out / ".lock").write_text("1")
    older = out / CASE / "torch-cpu-float16-00000000"
    older.mkdir()
    (older / "manifest.json").write_text("{")
    for name in NOTES:
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text("keep")
    return out, align("run", "weights", "--case", "pit_probe", "--out", out)


def test_neither_a_lock_that_nobody_holds_nor_a_damaged_recording_stops_a_run(into_others):
    out, result = into_others
    assert result.returncode == 0, result.stdout + result.stderr
    for name in ("torch-cpu-float32", "paddle-cpu-float32"):
        recording = manifest.Recording(manifest.latest(out / CASE, name))
        recording.verify()
        assert list(recording.manifest.steps) == ["weights"], "it is the new one"


def test_a_folder_of_results_is_not_emptied(into_others):
    """PaDiff removes the folder that it is given, with all that is in it."""
    assert [(into_others[0] / name).read_text() for name in NOTES] == ["keep"] * 3


def test_of_two_runs_at_once_into_one_folder_one_is_told_so(root, align, tmp_path):
    run = Run(root, tmp_path, "the plan is made").wait()
    second = align("run", "weights", "--case", "pit_probe", "--out", tmp_path)
    assert second.returncode == 3
    assert second.stderr == (
        f"align: error: {tmp_path}: in use by process {run.process.pid}; wait for it or give another --out\n"
    )
    printed, told = run.process.communicate(timeout=120)
    assert run.process.returncode == 0, printed + told
    assert len(whole(tmp_path)) == 4


class TestFullDisk:
    """On a real file system that is really full."""

    @pytest.fixture(scope="class")
    @classmethod
    def disk(cls, tmp_path_factory):
        folder = tmp_path_factory.mktemp("disk")
        try:
            mounted = subprocess.run(
                ["mount", "-t", "tmpfs", "-o", "size=256m", "tmpfs", folder], capture_output=True, text=True
            )
            why = mounted.stderr.strip() if mounted.returncode else ""
        except OSError as error:
            why = str(error)
        if why:
            pytest.skip(f"needs root and a mount: {why}")
        yield folder
        subprocess.run(["umount", folder], check=True)

    @pytest.fixture(scope="class")
    @classmethod
    def earlier(cls, disk, align):
        """A run that found space: its folder, its files with their content, and the size of plan and recordings."""
        out = disk / "out"
        result = align("run", *STEPS, "--case", "pit_probe", "--out", out)
        assert result.returncode == 0, result.stdout + result.stderr
        plan, recorded = (
            sum(path.stat().st_size for path in (out / CASE).glob(f"{pattern}/**/*") if path.is_file())
            for pattern in ("plan-*", "*-cpu-*")
        )
        return out, content(out), plan, recorded

    @pytest.mark.parametrize(
        ("plans", "recordings", "room"),
        [
            pytest.param(0, 0, 0, id="not even for a log", marks=pytest.mark.slow),
            pytest.param(0.5, 0, 0, id="not for the plan"),
            pytest.param(1, 0.3, 1 << 20, id="not for what is recorded"),
            pytest.param(1, 0.97, 0, id="not for the last of it", marks=pytest.mark.slow),
        ],
    )
    def test_a_run_stops_and_harms_nothing(self, disk, earlier, align, plans, recordings, room):
        out, before, plan, recorded = earlier
        free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        filler = disk / "filler"
        with filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, free - int(plans * plan + recordings * recorded + room))
        # Another seed is another plan, which cannot be shared with the earlier run.
        result = align("run", *STEPS, "--case", "pit_probe", "--seed", "7", "--out", out)
        filler.unlink()
        assert result.returncode == 3, result.stdout + result.stderr
        assert "No space left on device" in result.stderr
        assert "Traceback" not in result.stderr + result.stdout
        assert content(out) == before
        assert not list(out.rglob(".partial-*"))

    def test_what_was_there_can_still_be_compared(self, earlier):
        assert main(["diff", str(earlier[0])]) == 0

    def test_a_later_run_with_space_works(self, earlier, align):
        out, before, *_ = earlier
        result = align("run", *STEPS, "--case", "pit_probe", "--seed", "7", "--out", out)
        assert result.returncode == 0, result.stdout + result.stderr
        assert content(out).keys() != before.keys()
        assert len(whole(out)) == 4


def content(out):
    """Path -> bytes of everything but logs and locks."""
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name not in (".lock", "torch.log", "paddle.log")
    }


class TestDamaged:
    """Every file of a recording, changed in one byte or cut short: exit 2, and the file is named."""

    @pytest.fixture(scope="class")
    @classmethod
    def copy(cls, finished, tmp_path_factory):
        folder = tmp_path_factory.mktemp("copy")
        shutil.copytree(finished[0] / "recordings", folder / "recordings")
        return folder

    @pytest.fixture
    def damaged(self, copy, capsys):
        """Change a file, compare, and put it back; the answer is the exit code and what was told."""

        def diff(side, name, change):
            (path,) = (copy / CASE).glob(f"{side}-*/{name}")
            whole = path.read_bytes()
            path.unlink()
            if (content := change(bytearray(whole))) is not None:
                path.write_bytes(content)
            try:
                code = main(["diff", str(copy)])
            finally:
                path.write_bytes(whole)
            return code, capsys.readouterr().err, str(path)

        return diff

    @pytest.mark.parametrize(
        ("side", "name"),
        [
            *((side, "manifest.json") for side in ("torch-cpu-float32", "paddle-cpu-float32", "torch-cpu-float64")),
            *((side, "forward.tensors") for side in ("torch-cpu-float32", "paddle-cpu-float32", "paddle-cpu-float64")),
            *((side, "loss.index.jsonl") for side in ("torch-cpu-float32", "paddle-cpu-float64")),
            ("torch-cpu-float32", "bp_align.noise.json"),
        ],
    )
    @pytest.mark.parametrize("where", [0.0, 0.3, 0.7, 0.999])
    def test_one_byte(self, damaged, side, name, where):
        def change(content):
            at = int(where * len(content))
            while chr(content[at]).isspace():  # the spaces between the words of a JSON file say nothing
                at -= 1
            content[at] ^= 1
            return content

        code, told, path = damaged(side, name, change)
        assert code == 2, told
        assert path in told
        assert "Traceback" not in told

    @pytest.mark.parametrize("name", ["manifest.json", "forward.tensors", "forward.index.jsonl", "bp_align.noise.json"])
    @pytest.mark.parametrize("size", [0, 100])
    def test_cut_short(self, damaged, name, size):
        code, told, path = damaged("torch-cpu-float32", name, lambda content: content[:size])
        assert code == 2, told
        assert path in told

    @pytest.mark.parametrize("name", ["forward.tensors", "forward.index.jsonl", "bp_align.noise.json"])
    def test_missing(self, damaged, name):
        code, told, path = damaged("torch-cpu-float32", name, lambda _: None)
        assert (code, told) == (2, f"align: error: {path}: missing from its recording; record again\n")

    def test_without_its_manifest_a_folder_is_no_recording(self, damaged):
        code, told, _ = damaged("torch-cpu-float32", "manifest.json", lambda _: None)
        assert (code, "in float32, the reference in float64" in told) == (4, True), told

    def test_whole_again(self, copy):
        """Or the tests above would prove nothing."""
        assert main(["diff", str(copy)]) == 0
