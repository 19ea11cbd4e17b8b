"""Files of weights for PaddlePaddle: .safetensors and .pdparams, as {key: numpy array}, keys and layout as in the file.

Origin: written for this project.
Licence: Apache-2.0
"""

import collections
import contextlib
import os
import pickle
from pathlib import Path

import numpy as np
import paddle
from safetensors import SafetensorError, deserialize, safe_open
from safetensors.numpy import save_file

# Under these keys training scripts nest the state dict (DeiT's and timm's, in this order).
NESTED_KEYS = ("model", "state_dict")
# safetensors' names for what numpy can hold. BF16 is read too, widened to float32, which is exact.
DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U8": "u1"}


class WeightsError(ValueError):
    """Weights that cannot be had, read, or loaded into this model. The message says what, where, and what to do."""


def read_checkpoint(path, notes):
    """{key: array} of a file, in the file's own keys and layout; `notes` gets a sentence for each thing changed.

    bfloat16 comes as float32. A state dict may be nested under "model" or "state_dict", and its keys may all start
    with "module."; of a training state (`resume.py`) the weights are taken, averaged ones rather than the model's own.
    Nothing in the file is executed. Raises WeightsError.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"{path}: there is no such file; give a .safetensors or .pdparams file with the weights")
    if path.suffix == ".safetensors":
        content = _weights_of_training(read_safetensors(path, notes), notes)
    elif path.suffix == ".pdparams":
        content = _read_pdparams(path, notes)
    elif path.suffix == ".pth":
        raise WeightsError(
            f"{path}: PyTorch's own format; for a file of both sides: align convert {path} OUT.safetensors"
        )
    else:
        raise WeightsError(f"{path}: unknown kind of file {path.suffix!r}; .safetensors and .pdparams are read here")
    bad = [key for key, value in content.items() if not isinstance(value, np.ndarray)]
    if bad:
        raise WeightsError(f"{path}: not all are tensors: {some(bad)}; the first is a {type(content[bad[0]]).__name__}")
    if not content:
        raise WeightsError(f"{path}: holds no tensor")
    return content


def write_checkpoint(path, arrays, metadata=None):
    """Write {key: array} as .safetensors or .pdparams; aside first, then moved into place. Raises WeightsError.

    metadata: {key: string}, which only a .safetensors file can hold.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise WeightsError(f"{path}: could not be written: there is no folder {path.parent}")
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        if path.suffix == ".safetensors":
            # safetensors 0.8.0 writes an array that is not C-contiguous as it lies in memory: wrong values, no error.
            save_file({key: np.asarray(array, order="C") for key, array in arrays.items()}, aside, metadata)
        elif path.suffix == ".pdparams":
            paddle.save({key: paddle.to_tensor(array, place="cpu") for key, array in arrays.items()}, str(aside))
        else:
            raise WeightsError(
                f"{path}: unknown kind of file {path.suffix!r}; .safetensors and .pdparams are written here"
            )
        os.replace(aside, path)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise WeightsError(f"{path}: could not be written: {first_line(error)}") from error
    finally:
        with contextlib.suppress(OSError):
            aside.unlink()


def read_metadata(path):
    """{key: string} of a .safetensors file, from its header alone. Raises WeightsError."""
    if not Path(path).is_file():
        raise WeightsError(f"{path}: there is no such file")
    try:
        with safe_open(path, framework="numpy") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: truncated, corrupt or not safetensors: {first_line(error)}") from error


def to_numpy(tensor):
    """A copy of a tensor as an array of the same shape and dtype; float32 for bfloat16, which numpy has not."""
    tensor = tensor.detach()
    return (tensor.astype("float32") if tensor.dtype == paddle.bfloat16 else tensor).numpy().copy()


def some(items, separator=", ", count=3):
    """The first few of `items`, and how many more, for a message."""
    items = list(items)
    more = [f"and {len(items) - count} more"] if len(items) > count else []
    return separator.join(items[:count] + more) or "none"


def first_line(error):
    """The first line of an error's text, or its type if it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def read_safetensors(path, notes):
    """{key: array} of a .safetensors file with whatever keys; `notes` as in `read_checkpoint`. Raises WeightsError."""
    try:
        items = deserialize(Path(path).read_bytes())
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: truncated, corrupt or not safetensors: {first_line(error)}") from error
    arrays, widened = {}, 0
    for key, item in items:
        if item["dtype"] == "BF16":
            array = _widen_bfloat16(np.frombuffer(item["data"], "<u2"))
            widened += 1
        elif item["dtype"] in DTYPES:
            array = np.frombuffer(item["data"], DTYPES[item["dtype"]])
        else:
            raise WeightsError(f"{path}: {key} is of type {item['dtype']}, which is not read here; save it as float32")
        arrays[key] = array.reshape(item["shape"])
    if widened:
        notes.append(f"{widened} bfloat16 tensors widened to float32 (exact)")
    return arrays


class _ArrayUnpickler(pickle.Unpickler):
    # paddle: `paddle.load` unpickles whatever a file asks for, also code to run (paddle 3.3.1, framework/io.py), where
    # torch.load has weights_only. This admits only what `paddle.save` writes for a state dict, and none of it acts.

    def find_class(self, module, name):
        admitted = {
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
            ("numpy.core.multiarray", "_reconstruct"): _empty_array,  # written under numpy 1
            ("numpy._core.multiarray", "_reconstruct"): _empty_array,  # written under numpy 2
            ("_codecs", "encode"): _latin1_bytes,  # how protocol 2 writes bytes
            ("builtins", "tuple"): tuple,  # (name, array): how a nested tensor is written
            ("collections", "OrderedDict"): collections.OrderedDict,
        }
        if (module, name) not in admitted:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no part of weights; nothing was run")
        return admitted[module, name]


def _empty_array(subtype, shape, dtype):
    # numpy's own would make an array of any size; what follows in the file, its state, brings shape, dtype and bytes.
    if (subtype, tuple(shape)) != (np.ndarray, (0,)):
        raise pickle.UnpicklingError("an array is not written as numpy writes it")
    return np.empty(0, np.uint8)


def _latin1_bytes(text, encoding):
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes are not written as {encoding!r}")
    return text.encode("latin1")


def _read_pdparams(path, notes):
    try:
        with path.open("rb") as file:
            content = _ArrayUnpickler(file, encoding="latin1").load()
    except Exception as error:  # a bad file gives pickle's, numpy's and Python's own errors: one meaning
        raise WeightsError(f"{path}: truncated, corrupt or more than weights: {first_line(error)}") from error
    content = _unwrap(content, path, notes)
    if "UnpackBigParamInfor@@" in content:  # sic
        raise WeightsError(f"{path}: holds a tensor in slices; save it again with paddle.save(..., protocol=4)")
    # Paddle's key of the table of its tensors' internal names, which loading does not need.
    content = {key: value for key, value in content.items() if key != "StructuredToParameterName@@"}
    arrays = {
        key: value[1] if isinstance(value, tuple) and len(value) == 2 else value for key, value in content.items()
    }
    # paddle: it has no 16-bit unsigned type; where numpy shows one, the tensor was bfloat16.
    halves = [key for key, value in arrays.items() if isinstance(value, np.ndarray) and value.dtype == np.uint16]
    if halves:
        notes.append(f"{len(halves)} bfloat16 tensors widened to float32 (exact)")
    return arrays | {key: _widen_bfloat16(arrays[key]) for key in halves}


def _widen_bfloat16(bits):
    return (bits.astype("<u4") << 16).view("<f4")  # they are the upper half of a float32


def _weights_of_training(arrays, notes):
    """The averaged weights in a training state, or else the model's, as timm's `load_checkpoint`; others as given."""
    for section in ("ema/", "model/"):
        weights = {key.removeprefix(section): array for key, array in arrays.items() if key.startswith(section)}
        if weights:
            notes.append(f"{section.removesuffix('/')!r} of a training state taken; the rest is left out")
            return weights
    return arrays


def _unwrap(content, path, notes):
    """The state dict in what a checkpoint holds: itself, or what a training script nested, without DDP's prefix."""
    for key in NESTED_KEYS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            others = sorted(str(other) for other in content if other != key)
            notes.append(f"taken from {key!r} of the checkpoint; left out: {some(others)}")
            content = content[key]
            break
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise WeightsError(f"{path}: holds no state dict, but a {type(content).__name__}")
    if content and all(key.startswith("module.") for key in content):
        notes.append("prefix 'module.' of data-parallel training dropped")
        content = {key.removeprefix("module."): value for key, value in content.items()}
    return content
