"""`align convert`: real files, real frameworks in processes of their own, and every way it can fail."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from safetensors.numpy import load_file

from align.convert import convert
from align.errors import EnvironmentFault, UsageError
from align.record.safe_pickle import read_pdparams

# 256 classes: the head is square, as attn.proj is.
MAKE = """
import sys, torch
from torch_ref import pit, weights
torch.manual_seed(0)
model = pit.pit_ti_distilled(num_classes=256, image_size=(64, 48)).eval()
state = {weights.official_to_timm(name): value for name, value in model.state_dict().items()}
torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}, "epoch": 3}, sys.argv[1])
"""
TORCH_LOGITS = """
import sys, numpy as np, torch
from torch_ref import pit
torch.set_grad_enabled(False)
model = pit.pit_ti_distilled(pretrained=sys.argv[1], num_classes=256, image_size=(64, 48)).double().eval()
images = torch.tensor(np.random.default_rng(0).standard_normal((2, 3, 64, 48)))
np.save(sys.argv[2], model(images).numpy())
"""
PADDLE_LOGITS = """
import sys, numpy as np, paddle
from paddle_impl import pit
images = paddle.to_tensor(np.random.default_rng(0).standard_normal((2, 3, 64, 48)))
for weights in sys.argv[1:-1]:
    model = pit.pit_ti_distilled(pretrained=weights, num_classes=256, image_size=(64, 48)).to(dtype="float64")
    model.eval()
    with paddle.no_grad():
        np.save(f"{sys.argv[-1]}/{weights.rpartition('/')[2]}.npy", model(images).numpy())
"""


@pytest.fixture(scope="module")
def align(root):
    """Run `align convert` as a user does."""

    def run(*arguments, check=True, **kwargs):
        result = subprocess.run(
            [sys.executable, "-m", "align", "convert", *map(str, arguments)],
            cwd=root,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            **kwargs,
        )
        if check:
            assert result.returncode == 0, result.stderr
        return result

    return run


class Chain(NamedTuple):
    """One set of weights, handed from format to format, with both sets of keys; and what was printed.

    A file stood in the way of the last conversion, which was refused, and then done with --force.
    """

    folder: Path
    printed: list[subprocess.CompletedProcess]
    refused: subprocess.CompletedProcess
    kept: str  # what the file in the way held after that


@pytest.fixture(scope="module")
def files(align, run_python, tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    run_python(MAKE, folder / "a.pth")
    printed = [
        align(folder / "a.pth", folder / "b.pdparams"),
        align(folder / "b.pdparams", folder / "c.safetensors", "--keys", "timm", "--model", "pit_ti_distilled"),
        align(folder / "c.safetensors", folder / "d.pdparams", "--keys", "timm"),
        align(folder / "d.pdparams", folder / "e.pth", "--json"),
    ]
    last = folder / "f.safetensors"
    last.write_text("mine")
    refused = align(folder / "e.pth", last, check=False)
    kept = last.read_text()
    printed.append(align(folder / "e.pth", last, "--force"))
    return Chain(folder, printed, refused, kept)


def test_the_values_survive_every_format(files):
    folder = files.folder
    first, last = load_file(folder / "c.safetensors"), load_file(folder / "f.safetensors")
    assert len(first) == len(last) == 162
    for name, array in last.items():
        timm = name.replace("pools.1.", "transformers.2.pool.").replace("pools.0.", "transformers.1.pool.")
        assert array.tobytes() == first[timm].tobytes(), name


def test_only_the_weights_of_linear_layers_are_transposed(files):
    folder = files.folder
    torch, paddle = load_file(folder / "f.safetensors"), read_pdparams(folder / "b.pdparams")
    assert torch.keys() == paddle.keys()
    for name, array in torch.items():
        linear = array.ndim == 2
        assert paddle[name].tobytes() == np.ascontiguousarray(array.T if linear else array).tobytes(), name
    assert sum(array.ndim == 2 for array in torch.values()) == 52


def test_both_frameworks_compute_the_same_from_the_converted_files(files, run_python, tmp_path):
    folder = files.folder
    run_python(TORCH_LOGITS, folder / "a.pth", tmp_path / "torch.npy")
    names = ("b.pdparams", "c.safetensors", "d.pdparams")
    run_python(PADDLE_LOGITS, *(folder / name for name in names), tmp_path)
    theirs = np.load(tmp_path / "torch.npy")
    for name in names:
        ours = np.load(tmp_path / f"{name}.npy")
        assert np.linalg.norm(ours - theirs) / np.linalg.norm(theirs) < 1e-12, name  # 1e-15 seen; a transpose: 1


def test_it_says_what_it_did(files):
    folder, printed = files.folder, files.printed
    lines = printed[0].stdout.splitlines()
    assert lines[:-1] == [
        f"read     {folder}/a.pth: pit_ti_distilled, 162 tensors, by torch",
        "note     taken from 'state_dict' of the checkpoint; left out: epoch",
        "note     prefix 'module.' of data-parallel training dropped",
        f"written  {folder}/b.pdparams: official keys, 52 tensors transposed, by paddle",
        "checked  every hash is the source's; loaded into pit_ti_distilled",
    ]
    assert lines[-1].startswith("done     162 tensors, 52 transposed, sha256 ")
    done = json.loads(printed[3].stdout)
    assert (done["variant"], done["tensors"], done["transposed"], done["keys"]) == (
        "pit_ti_distilled",
        162,
        0,
        "official",
    )
    assert len(done["tensor_sha256"]) == 162
    assert printed[3].stderr.startswith("read ")


def test_nothing_else_is_left(files):
    folder = files.folder
    assert sorted(os.listdir(folder)) == [
        "a.pth",
        "b.pdparams",
        "c.safetensors",
        "d.pdparams",
        "e.pth",
        "f.safetensors",
    ]


def test_an_existing_file_is_replaced_only_by_force(files):
    target = files.folder / "f.safetensors"
    assert files.refused.returncode == 2
    assert files.refused.stderr == (
        f"align: error: {target}: exists already; choose another name, or replace it with --force\n"
    )
    assert files.kept == "mine"
    assert len(load_file(target)) == 162


def test_unusable_arguments(files, tmp_path):
    folder = files.folder
    for source, target, words in (
        (folder / "none.pth", tmp_path / "x.pth", "none.pth: there is no such file"),
        (
            folder / "a.pth",
            tmp_path / "x.onnx",
            "x.onnx: unknown kind of file '.onnx'; one of .pth, .pdparams, .safetensors",
        ),
        (folder / "a", tmp_path / "x.pth", "unknown kind of file ''"),
        (folder / "a.pth", tmp_path / "none" / "x.pth", "x.pth: there is no folder"),
    ):
        with pytest.raises(UsageError, match=words):
            convert(source, target)
    assert os.listdir(tmp_path) == []


def test_unusable_weights(files, align, tmp_path):
    folder = files.folder
    whole = (folder / "b.pdparams").read_bytes()
    (tmp_path / "cut.pdparams").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "run.pdparams").write_bytes(b"cposix\nsystem\n(X\x04\x00\x00\x00exittR.")
    for source, options, words in (
        (tmp_path / "cut.pdparams", [], f"{tmp_path}/cut.pdparams: truncated, corrupt or more than weights"),
        (tmp_path / "run.pdparams", [], "it asks for posix.system, which is no part of weights; nothing was run"),
        (
            folder / "b.pdparams",
            ["--model", "pit_s"],
            "b.pdparams: the names and shapes are those of pit_ti_distilled, not of pit_s",
        ),
    ):
        result = align(source, tmp_path / "x.safetensors", *options, check=False)
        assert result.returncode == 2
        assert result.stderr.startswith("align: error: ")
        assert result.stderr.count("\n") == 1
        assert words in result.stderr
    assert sorted(os.listdir(tmp_path)) == ["cut.pdparams", "run.pdparams"]


def interpreter(path, body):
    """An interpreter that is not what it should be."""
    path.write_text(f"#!{sys.executable}\nimport os, subprocess, sys, time\narguments = sys.argv[1:]\n{body}\n")
    path.chmod(0o755)
    return str(path)


def test_interpreters_that_cannot(files, tmp_path):
    folder = files.folder
    bare = interpreter(tmp_path / "bare", "os.execv(sys.executable, [sys.executable, '-S', *arguments])")
    for python, words in (
        (str(tmp_path / "none"), "--torch-python .*none: cannot be started: No such file"),
        (
            bare,
            "the torch side failed in .*bare: ModuleNotFoundError: .*; name an interpreter .* with --torch-python",
        ),
    ):
        with pytest.raises(EnvironmentFault, match=words):
            convert(folder / "e.pth", tmp_path / "x.safetensors", pythons={"torch": python})
    assert os.listdir(tmp_path) == ["bare"]


def test_a_file_that_does_not_read_back_is_not_kept(files, tmp_path):
    """A writer that loses one bit: after `write`, the last byte of the file is another."""
    folder = files.folder
    body = """
code = subprocess.call([sys.executable, *arguments])
if "write" in arguments:
    with open(arguments[arguments.index("write") + 2], "r+b") as file:
        file.seek(-1, 2)
        last = file.read()
        file.seek(-1, 2)
        file.write(bytes([last[0] ^ 1]))
sys.exit(code)
"""
    python = interpreter(tmp_path / "lossy", body)
    words = "x.safetensors: not kept, because read back by align 1 of 162 tensors are not the source's: "
    with pytest.raises(EnvironmentFault, match=words):
        convert(folder / "e.pth", tmp_path / "x.safetensors", pythons={"torch": python})
    assert os.listdir(tmp_path) == ["lossy"]


def test_killed_half_way_it_leaves_no_target_and_can_run_again(files, root, align, tmp_path):
    folder = files.folder
    body = """
code = subprocess.call([sys.executable, *arguments])
open(os.path.join(os.path.dirname(sys.argv[0]), "written"), "w").close()
time.sleep(60)
sys.exit(code)
"""
    python = interpreter(tmp_path / "slow", body)
    target = tmp_path / "x.safetensors"
    command = [sys.executable, "-m", "align", "convert", folder / "e.pth", target, "--torch-python", python]
    process = subprocess.Popen(command, cwd=root, stdout=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "written").exists():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not target.exists()
    align(folder / "e.pth", target)
    assert target.read_bytes() == (folder / "f.safetensors").read_bytes()


def test_a_disk_that_takes_no_more(files, root, tmp_path):
    """The shell's limit on the size of a file stands for the disk: the system refuses the bytes in the same way."""
    folder = files.folder
    line = f"ulimit -f 2000; exec {sys.executable} -m align convert {folder}/e.pth {tmp_path}/x.pdparams"
    result = subprocess.run(["bash", "-c", line], cwd=root, capture_output=True, text=True)
    assert result.returncode == 3, result.stderr
    assert "could not be written" in result.stderr
    assert result.stderr.count("\n") == 1
    assert os.listdir(tmp_path) == []


def test_the_harness_imports_no_framework(run_python):
    run_python("import sys, align.convert, align.cli.convert; assert not {'torch', 'paddle'} & set(sys.modules)")
