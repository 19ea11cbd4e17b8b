"""`align run` as a user calls it: real processes, real recordings, every exit code and message."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from align.record.manifest import Recording

QUICK = ("data", "weights", "forward", "metric", "loss", "bp_align")


def copied(root: Path, folder: Path) -> Path:
    """A working directory with copies of both sides' packages, to put a bug into: they come before the project's."""
    for package in ("torch_ref", "paddle_impl"):
        shutil.copytree(root / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def test_a_correct_port_is_aligned(finished):
    out, result = finished
    verdict = json.loads((out / "verdict.json").read_text())
    assert verdict["schema"] == "align/1"
    assert (verdict["case"], verdict["verdict"], verdict["blamed_step"]) == ("pit_probe", "aligned", None)
    assert [step["step"] for step in verdict["steps"]] == list(QUICK)
    assert all(step["rows"] > 0 and step["verdict"] == "aligned" for step in verdict["steps"])
    assert "aligned" in result.stdout


def test_every_file_of_the_contract_is_written(finished):
    out, _ = finished
    for step in QUICK:
        for name in (f"{step}_torch.npy", f"{step}_paddle.npy", f"{step}_diff.log"):
            assert (out / name).stat().st_size > 0, name
    rows = [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]
    assert {row["step"] for row in rows} == set(QUICK)
    assert all({"matched_by", "waived", "min_tolerance"} <= row.keys() for row in rows)


def test_the_unmodified_package_reads_the_pairs(finished, run_python):
    """In its own process, through the package's own loader, with the keys of the contract."""
    out, _ = finished
    code = """
import sys
from reprod_log import ReprodDiffHelper
helper = ReprodDiffHelper()
for step in sys.argv[2:]:
    pair = [helper.load_info(f"{sys.argv[1]}/{step}_{side}.npy") for side in ("torch", "paddle")]
    assert list(pair[0]) == list(pair[1]) and pair[0], step
    print(step, *pair[0])
"""
    keys = {line.split()[0]: line.split()[1:] for line in run_python(code, out, *QUICK).stdout.splitlines() if line}
    assert keys["forward"] == ["features", "logits"]
    assert keys["metric"] == ["acc1", "acc5"]
    assert {"cross_entropy", "cross_entropy/grad", "distillation_soft/grad_kd"} <= set(keys["loss"])
    assert {"loss/0", "loss/4", "grad/pos_embed", "param/head.weight"} <= set(keys["bp_align"])
    assert {"00-astronaut/decoded", "10-flower/normalised"} <= set(keys["data"])


def test_a_log_holds_only_the_lines_of_its_step(finished):
    out, _ = finished
    log = (out / "forward_diff.log").read_text()
    assert "logits" in log
    assert "acc1" not in log
    assert "diff check passed" in log
    assert log.count("diff check") == 1
    assert "at reprod_log's default" in log


def test_metrics_lie_strictly_between_0_and_1_and_differ(finished):
    out, _ = finished
    values = np.load(out / "metric_torch.npy", allow_pickle=True).item()
    assert 0 < values["acc1"] < values["acc5"] < 1


def test_a_manifest_tells_the_code_that_ran_and_the_environment(finished, root):
    out, _ = finished
    manifests = {path.parent.name.split("-")[0]: json.loads(path.read_text()) for path in out.rglob("manifest.json")}
    assert manifests["paddle"]["code"]["paddle_impl.pit"]["file"] == str(root / "paddle_impl/pit.py")
    assert manifests["torch"]["environment"]["versions"].keys() >= {"torch", "numpy"}
    assert {switch["name"] for switch in manifests["paddle"]["environment"]["switches"]} >= {"threads"}


def test_one_wrong_epsilon_is_misaligned(align, root, tmp_path):
    folder = copied(root, tmp_path / "tree")
    port = folder / "paddle_impl/pit.py"
    text = port.read_text()
    assert "epsilon=1e-6" in text
    port.write_text(text.replace("epsilon=1e-6", "epsilon=1e-5", 1))
    arguments = ("run", "forward", "--case", "pit_probe", "--keep", "summary", "--out", tmp_path / "out")
    result = align(*arguments, cwd=folder)
    assert result.returncode == 1, result.stdout + result.stderr
    verdict = json.loads((tmp_path / "out/verdict.json").read_text())
    assert (verdict["verdict"], verdict["blamed_step"]) == ("misaligned", "forward")
    assert "misaligned" in (tmp_path / "out/forward_diff.log").read_text()
    # The summary holds what is around the first difference in full, of both sides and in both types.
    kept = []
    for path in (tmp_path / "out/recordings/pit_probe").glob("*-cpu-*"):
        Recording(path).verify()
        step = Recording(path).step("forward")
        assert step["activation/transformers.0.blocks.0.norm1/out"].any()
        assert all("summary" in entry.facts for entry in step.entries.values() if not entry.stored)
        kept.append(sum(entry.stored for entry in step.entries.values()))
    assert len(kept) == 4
    assert max(kept) < 30


@pytest.mark.parametrize(
    ("side", "other"), [("paddle", "torch"), pytest.param("torch", "paddle", marks=pytest.mark.slow)]
)
def test_a_side_that_imports_the_other_framework_is_refused(align, root, tmp_path, side, other):
    """The clean runs above show that neither does; this, that it would be seen."""
    folder = copied(root, tmp_path / "tree")
    package = {"torch": "torch_ref", "paddle": "paddle_impl"}[side]
    metrics = folder / package / "metrics.py"
    metrics.write_text(metrics.read_text() + f"\nimport {other}\n")
    result = align("run", "metric", "--case", "pit_probe", "--out", tmp_path / "out", cwd=folder)
    assert result.returncode == 2, result.stdout + result.stderr
    assert f"the {side} process imported '{other}'" in result.stderr


def test_sides_recorded_one_after_the_other(align, reference_alone, tmp_path):
    assert not (reference_alone[0] / "verdict.json").exists()
    out = shutil.copytree(reference_alone[0], tmp_path / "out")
    port = ("--side", "paddle", "--keep", "summary")
    result = align("run", "forward", "--case", "pit_probe", "--out", out, *port)
    assert result.returncode == 0, result.stdout + result.stderr
    assert json.loads((out / "verdict.json").read_text())["verdict"] == "aligned"
    recordings = list((out / "recordings/pit_probe").glob("*-cpu-*"))
    assert len(recordings) == 4
    for path in recordings:
        stored = {entry.stored for entry in Recording(path).step("forward").entries.values()}
        assert stored == {path.name.startswith("torch")}, "the reference is there for the next run of the port"


def test_the_port_alone_without_a_recorded_reference(align, tmp_path):
    result = align("run", "forward", "--case", "pit_probe", "--out", tmp_path, "--side", "paddle")
    assert result.returncode == 2
    assert "record it first with --side torch" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--case", "pit_tii"], 2, "did you mean pit_ti"),
        (["forwards", "--case", "pit_probe"], 2, "unknown step 'forwards'"),
        (["weights", "--case", "pit_probe", "--weights", "nowhere.pth"], 2, "nowhere.pth: no such file"),
        (["data", "--case", "pit_probe", "--data", "nowhere"], 2, "--data nowhere: no such file or folder"),
        (["weights", "--case", "pit_probe", "--torch-python", "/nowhere/python"], 3, "cannot start it"),
        (["weights", "--case", "pit_probe", "--threads", "0"], 2, "not a positive number"),
        (["weights", "--case", "pit_probe", "--side", "torch", "--keep", "summary"], 2, "needs a comparison"),
    ],
)
def test_bad_arguments(align, tmp_path, arguments, code, message):
    result = align("run", *arguments, "--out", tmp_path / "out")
    assert result.returncode == code, result.stdout + result.stderr
    assert message in result.stderr
    assert "Traceback" not in result.stderr + result.stdout
    assert not (tmp_path / "out/verdict.json").exists()


@pytest.mark.parametrize("side", ["torch", "paddle"])
def test_no_gpu(align, finished, tmp_path, side):
    (manifest,) = finished[0].glob(f"recordings/pit_probe/{side}-cpu-float32-*/manifest.json")
    seen = json.loads(manifest.read_text())["environment"]
    if seen["devices"]["gpus"]:
        pytest.skip(f"{side} sees a GPU: {seen['devices']['gpus'][0]}")
    result = align("run", "forward", "--case", "pit_probe", "--out", tmp_path / "out", f"--{side}-device", "gpu")
    assert result.returncode == 3, result.stdout + result.stderr
    assert f"{side} side, --device gpu" in result.stderr
    assert ("is a CPU wheel" in result.stderr) is (seen["versions"]["cuda"] in ("False", "None"))
    assert "Traceback" not in result.stderr + result.stdout
    assert not (tmp_path / "out/verdict.json").exists()


QUICK_HALVES = {("forward", "float16"), ("bp_align", "bfloat16")}
HALVES = [
    pytest.param(step, dtype, marks=[] if (step, dtype) in QUICK_HALVES else pytest.mark.slow)
    for step in ("data", "forward", "loss", "bp_align", "optim", "train_align")
    for dtype in ("float16", "bfloat16")
]


class TestHalfPrecision:
    """Paddle's CPU build has hardly a kernel for it: that is the machine's lack, and no verdict on the port."""

    @pytest.mark.parametrize(("step", "dtype"), HALVES)
    def test_a_step_without_kernels_on_a_cpu_is_one_message(self, align, tmp_path, step, dtype):
        result = align("run", step, "--case", "pit_probe", "--dtype", dtype, "--out", tmp_path / "out")
        assert result.returncode == 3, result.stdout + result.stderr
        assert f"in {dtype} on cpu: Paddle has no {dtype} kernel of" in result.stderr
        assert "or with --device gpu" in result.stderr
        assert "Traceback" not in result.stderr + result.stdout
        assert not (tmp_path / "out/verdict.json").exists()

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
    @pytest.mark.slow
    def test_weights_and_their_distributions_are_compared_as_files_hold_them(self, align, tmp_path, dtype):
        result = align("run", "weights", "init", "--case", "pit_probe", "--dtype", dtype, "--out", tmp_path / "out")
        assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.slow  # the matrix has it
def test_a_port_that_casts_to_half_itself_is_misaligned(align, root, tmp_path):
    folder = copied(root, tmp_path / "tree")
    port = folder / "paddle_impl/losses.py"
    text = port.read_text()
    assert "F.log_softmax(x, axis=-1)" in text
    port.write_text(text.replace("F.log_softmax(x, axis=-1)", 'F.log_softmax(x.astype("float16"), axis=-1)'))
    arguments = ("run", "loss", "--case", "pit_probe", "--out", tmp_path / "out")
    result = align(*arguments, cwd=folder)
    assert result.returncode == 1, result.stdout + result.stderr
    assert json.loads((tmp_path / "out/verdict.json").read_text())["blamed_step"] == "loss"


def test_an_unreadable_image_among_good_ones(align, tmp_path, root):
    from align.plan.photographs import shipped

    folder = tmp_path / "photos/cat"
    folder.mkdir(parents=True)
    shutil.copy(shipped()[1], folder / "good.png")
    (folder / "broken.png").write_bytes(shipped()[1].read_bytes()[:2000])
    result = align("run", "data", "--case", "pit_probe", "--data", tmp_path / "photos", "--out", tmp_path / "out")
    assert result.returncode == 2
    assert "cannot read image" in result.stderr
    assert "broken.png" in result.stderr


@pytest.fixture(scope="module")
def of_photographs(align, tmp_path_factory):
    """A run of `data` on three photographs of one's own, with `--json`: its folder, and what it printed."""
    from align.plan.photographs import shipped

    folder = tmp_path_factory.mktemp("photographs")
    for index, path in enumerate(shipped()[:3]):
        (folder / f"photos/class{index}").mkdir(parents=True)
        shutil.copy(path, folder / f"photos/class{index}")
    result = align("run", "data", "--case", "pit_probe", "--data", folder / "photos", "--out", folder / "out", "--json")
    assert result.returncode == 0, result.stderr
    return folder / "out", result


def test_json_goes_alone_to_standard_output(of_photographs):
    out, result = of_photographs
    assert json.loads(result.stdout) == json.loads((out / "verdict.json").read_text())


def test_a_folder_of_ones_own_photographs(of_photographs):
    from align.plan.photographs import shipped

    out, result = of_photographs
    names = [json.loads(line)["name"] for line in (out / "rows.jsonl").read_text().splitlines()]
    assert json.loads(result.stdout)["steps"][0]["rows"] == len(names)
    decoded = [name for name in names if name.endswith("/decoded") and not name.startswith("variant-")]
    assert decoded == [f"{index:02d}-{path.stem}/decoded" for index, path in enumerate(shipped()[:3])]


def test_an_unwritable_folder(align, tmp_path):
    file = tmp_path / "file"
    file.write_text("not a folder")
    result = align("run", "weights", "--case", "pit_probe", "--out", file / "out")
    assert result.returncode == 2
    assert "cannot write there" in result.stderr
    assert file.read_text() == "not a folder"


def test_weights_of_another_variant_leave_earlier_results(align, finished, tmp_path):
    from safetensors.numpy import save_file

    out = shutil.copytree(finished[0], tmp_path / "out")
    before = (out / "verdict.json").read_bytes()
    save_file({"head.weight": np.zeros((10, 4), np.float32)}, tmp_path / "w.safetensors")
    result = align("run", "weights", "--case", "pit_probe", "--weights", tmp_path / "w.safetensors", "--out", out)
    assert result.returncode == 2, result.stdout + result.stderr
    assert "not weights of case pit_probe" in result.stderr
    assert (out / "verdict.json").read_bytes() == before


def test_a_truncated_weight_file(align, tmp_path):
    (tmp_path / "w.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{")
    result = align(
        "run", "weights", "--case", "pit_probe", "--weights", tmp_path / "w.safetensors", "--out", tmp_path / "out"
    )
    assert result.returncode == 2
    assert "w.safetensors" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_second_run_into_the_same_folder_stops_at_once(align, tmp_path, root):
    holder = subprocess.Popen(
        [sys.executable, "-c", "import sys; from pathlib import Path; from align.record.lock import exclusive\n"
         "with exclusive(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()", str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root,
    )  # fmt: skip
    try:
        assert holder.stdout.readline() == "held\n"
        result = align("run", "weights", "--case", "pit_probe", "--out", tmp_path)
        assert result.returncode == 3
        assert f"in use by process {holder.pid}" in result.stderr
    finally:
        holder.communicate()
