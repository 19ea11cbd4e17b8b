"""Weights of PiT in PaddlePaddle: getting, checking and loading them, by official or timm keys.

Origin: written for this project. Official keys: https://github.com/naver-ai/pit; timm's: 1.0.31, `checkpoint_filter_fn`
of `models/pit.py`.
Licence: Apache-2.0

Everything here speaks one language, the *reference state*: {official key: numpy array in PyTorch's layout}.
"""

import functools
import hashlib
import re
import warnings
from pathlib import Path

import numpy as np
import paddle
from paddle import nn
from paddle.nn.layer.norm import _BatchNormBase

from paddle_impl.checkpoint import WeightsError, first_line, read_checkpoint, some, to_numpy, write_checkpoint

# timm 1.0.31, `default_cfgs` of models/pit.py; the distilled variants have repositories of their own.
HUB_REPOSITORY = "timm/{variant}_224.in1k"
HUB_FILE = "model.safetensors"
# paddle: a Linear computes x @ W where PyTorch computes x @ W.T, so its weight is kept transposed.
TRANSPOSED_LAYERS = (nn.Linear,)
# paddle: a BatchNorm's buffers have names of their own, and none counts the batches.
BATCH_NORMS = (_BatchNormBase, nn.BatchNorm)
BATCH_NORM_BUFFERS = {"_mean": "running_mean", "_variance": "running_var"}


def timm_to_official(name):
    """Official key of a timm key: timm keeps a pool inside the stage that follows it. Official keys stay."""
    match = re.fullmatch(r"transformers\.(\d+)\.pool\.(.+)", name)
    if match is None:
        return name
    if match[1] == "0":
        raise WeightsError(
            f"{name}: an old timm kept the pools in the stages before; save the weights with timm 1.0.31"
        )
    return f"pools.{int(match[1]) - 1}.{match[2]}"


def official_to_timm(name):
    """timm key of an official key; the inverse of `timm_to_official`."""
    match = re.fullmatch(r"pools\.(\d+)\.(.+)", name)
    return name if match is None else f"transformers.{int(match[1]) + 1}.pool.{match[2]}"


def infer_variant(state):
    """(variant, keyword arguments) of the built-in model whose official state dict this is, by names and shapes.

    Looks only at tokens, biases and convolutions, which have one layout everywhere. WeightsError if no variant fits.
    """
    from paddle_impl.pit import VARIANTS

    try:
        _, dim, *grid = state["pos_embed"].shape
        _, tokens, _ = state["cls_token"].shape
        _, in_chans, _, _ = state["patch_embed.conv.weight"].shape
    except (KeyError, ValueError):
        raise WeightsError(
            f"not the weights of a PiT: pos_embed (1, C, h, w), cls_token (1, T, C) and patch_embed.conv.weight are "
            f"not all among the {len(state)} tensors ({some(state)})"
        ) from None
    for variant, hyper in VARIANTS.items():
        if hyper["base_dims"][0] * hyper["heads"][0] == dim and tokens == 1 + hyper["distilled"]:
            size = tuple((cells - 1) * hyper["stride"] + hyper["patch_size"] for cells in grid)
            classes = len(state["head.bias"]) if "head.bias" in state else 0
            return variant, {"image_size": size, "in_chans": in_chans, "num_classes": classes}
    raise WeightsError(f"no variant of PiT has a first width of {dim} and {tokens} tokens")


def build_for(state, variant=None):
    """(variant, model) that a state with official keys fits; the model is float64 if the state is.

    Raises WeightsError if no built-in variant fits, or only another than `variant`.
    """
    from paddle_impl import pit

    found, arguments = infer_variant(state)
    if variant not in (None, found):
        raise WeightsError(f"the names and shapes are those of {found}, not of {variant}")
    model = getattr(pit, found)(**arguments)
    # paddle: Layer.astype changes nothing (paddle 3.3.1, Paddle#76614); Layer.to does.
    return found, model.to(dtype="float64") if any(array.dtype == np.float64 for array in state.values()) else model


def read_weights(path, model=None, notes=None):
    """Reference state of a .safetensors or .pdparams file with official or timm keys.

    `model` says what a file in the framework's own layout means, because a layer's type decides what is transposed;
    without one, a built-in variant that fits the names and shapes does. A list given as `notes` gets a sentence for
    each thing that was changed. Nothing in the file is executed. Raises WeightsError.
    """
    arrays = read_checkpoint(path, [] if notes is None else notes)
    state = _official_keys(arrays, path)
    if Path(path).suffix == ".pdparams":  # paddle: the one kind of file that is not in PyTorch's layout
        state = _from_paddle(model or build_for(state)[1], state)
    return state


def write_weights(path, state, model, keys="official"):
    """Write a reference state that fits `model` as .safetensors or .pdparams, with "official" or "timm" keys.

    Written aside and moved into place. Raises WeightsError.
    """
    _check_fit(model, state)
    state = {key: state[key] for key in _slots(model) if key in state}  # in the model's order
    if Path(path).suffix == ".pdparams":  # paddle: the one kind of file that is not in PyTorch's layout
        state = _to_paddle(model, state)
    write_checkpoint(path, _rename(state, keys))


def reference_state(model):
    """Reference state of a model: a copy of every parameter and buffer."""
    return _from_paddle(model, {key: to_numpy(tensor) for key, tensor in model.state_dict().items()})


def transposed_keys(model):
    """Official keys whose arrays this framework keeps transposed."""
    return [key for key, (_, transposed) in _slots(model).items() if transposed]


def load_reference_state(model, state, cast=False):
    """Load a reference state into a model; strict. Returns {official key: sha256 of the tensor's bytes as loaded}.

    Every tensor is used once, every parameter and buffer filled once; only `num_batches_tracked` of a BatchNorm, which
    Paddle has not, is ignored. Values take the parameters' dtypes, which must hold them exactly (float64 holds
    float32) unless `cast` is true. All is read back afterwards and the hashes compared.

    Raises WeightsError that names the tensors; names, shapes and dtypes are checked before anything is loaded.
    """
    state = {key: state[key] for key in state if key not in _batch_counters(model)}
    _check_fit(model, state)
    current = model.state_dict()
    slots = _slots(model)
    tensors = {key: _as_dtype(key, array, current[slots[key][0]].dtype, cast) for key, array in state.items()}
    # paddle: set_state_dict only warns about a tensor that does not fit, and goes on.
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        missing, unexpected = model.set_state_dict(_to_paddle(model, {key: t.numpy() for key, t in tensors.items()}))
    if missing or unexpected:
        raise WeightsError(f"the framework did not load all: missing {some(missing)}, unexpected {some(unexpected)}")
    if caught:
        raise WeightsError(f"the framework warned while loading: {some((str(w.message) for w in caught), '; ')}")
    loaded = reference_state(model)
    hashes = {key: sha256(loaded[key]) for key in state}
    wrong = [key for key in state if hashes[key] != sha256(to_numpy(tensors[key]))]
    if wrong:
        raise WeightsError(f"{len(wrong)} tensors read back are not what was given: {some(wrong)}")
    return hashes


def load_pretrained(model, variant, pretrained):
    """Load weights into a model of `variant`: True takes timm's from the hub or its cache, a path a local file.

    Raises WeightsError if they cannot be had, read, or do not fit.
    """
    path = _fetch(variant) if pretrained is True else Path(pretrained)
    state = read_weights(path, model)
    try:
        load_reference_state(model, state)
    except WeightsError as error:
        raise WeightsError(f"{path}: not for this {variant}: {error}. {_advice(state)}") from error


def _fetch(variant):
    """Path of the variant's file in the hub's cache; downloaded if it is not there."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache

    repository = HUB_REPOSITORY.format(variant=variant)
    cached = try_to_load_from_cache(repository, HUB_FILE)
    if isinstance(cached, str):  # the hub is not asked for what is here
        return Path(cached)
    try:
        # One question, not repeated: the download repeats its own for 23 s (huggingface_hub 2.4.0) without a network.
        get_hf_file_metadata(hf_hub_url(repository, HUB_FILE), timeout=10)
        return Path(hf_hub_download(repository, HUB_FILE))
    except Exception as error:  # the hub's own errors, its HTTP client's (which has changed) and the system's
        raise WeightsError(
            f"pretrained weights of {variant}: {HUB_FILE} of {repository} is not in the local cache and could not be "
            f"downloaded ({type(error).__name__}: {first_line(error)}). Fetch it where there is a network and give the "
            f'file, {variant}(pretrained="FILE"), or point HF_HOME at a cache folder that holds it'
        ) from error


def _official_keys(arrays, path):
    state = {timm_to_official(key): array for key, array in arrays.items()}
    if len(state) < len(arrays):
        raise WeightsError(f"{path}: holds a pool twice, under its official and its timm keys")
    return state


def _rename(arrays, keys):
    return {official_to_timm(key) if keys == "timm" else key: array for key, array in arrays.items()}


def _slots(model):
    """{official key: (Paddle's key, whether Paddle keeps it transposed)} of every parameter and buffer.

    The type of the layer that owns a tensor decides, never its shape or name: `attn.proj` is square, and a transpose
    forgotten there fits.
    """
    slots = {}
    for key in model.state_dict():
        *path, leaf = key.split(".")
        owner = functools.reduce(getattr, path, model)
        transposed = isinstance(owner, TRANSPOSED_LAYERS) and leaf == "weight"
        if isinstance(owner, BATCH_NORMS):
            leaf = BATCH_NORM_BUFFERS.get(leaf, leaf)
        slots[".".join([*path, leaf])] = key, transposed
    return slots


def _to_paddle(model, state):
    """Reference state -> {Paddle's key: array in Paddle's layout}."""
    slots = {official: slot for official, slot in _slots(model).items() if official in state}
    return {key: state[official].T if transposed else state[official] for official, (key, transposed) in slots.items()}


def _from_paddle(model, arrays):
    """{Paddle's key: array in Paddle's layout} -> reference state; keys that the model has not stay as they are."""
    official = {key: (name, transposed) for name, (key, transposed) in _slots(model).items()}
    slots = {key: official.get(key, (key, False)) for key in arrays}
    return {name: arrays[key].T if transposed else arrays[key] for key, (name, transposed) in slots.items()}


def _batch_counters(model):
    """Keys that a BatchNorm of PyTorch has and Paddle's has not."""
    norms = [prefix for prefix, layer in model.named_sublayers(include_self=True) if isinstance(layer, BATCH_NORMS)]
    return {f"{prefix}.num_batches_tracked".removeprefix(".") for prefix in norms}


def _expected(model):
    """{official key: shape in PyTorch's layout} of what a reference state must hold to fill the model."""
    current = model.state_dict()
    shapes = {official: (tuple(current[key].shape), turned) for official, (key, turned) in _slots(model).items()}
    return {official: shape[::-1] if transposed else shape for official, (shape, transposed) in shapes.items()}


def _check_fit(model, state):
    """Raise WeightsError unless `state` has the names and shapes that the model needs, no more and no fewer."""
    expected = _expected(model)
    missing = [key for key in expected if key not in state]
    unexpected = [key for key in state if key not in expected]
    shapes = [
        f"{key} is {state[key].shape} where the model has {expected[key]}"
        for key in expected
        if key in state and state[key].shape != expected[key]
    ]
    faults = []
    if missing:
        faults.append(f"{len(missing)} tensors are missing ({some(missing)})")
    if unexpected:
        faults.append(f"{len(unexpected)} are unknown to the model ({some(unexpected)})")
    if shapes:
        faults.append(f"{len(shapes)} have another shape ({some(shapes, '; ')})")
    if faults:
        raise WeightsError(", ".join(faults))


def _advice(state):
    """What the weights are, and which model takes them."""
    try:
        found, arguments = infer_variant(state)
    except WeightsError as error:
        return str(error)
    text = ", ".join(f"{key}={value}" for key, value in arguments.items())
    return f"The names and shapes are those of {found}({text}); a head for other classes can be put on after loading"


def _as_dtype(key, array, dtype, cast):
    """Tensor of `dtype` with the array's values; WeightsError if it cannot hold them and `cast` is false."""
    source = paddle.to_tensor(array, place="cpu")
    tensor = source.astype(dtype)
    if not cast and not np.array_equal(to_numpy(tensor.astype(source.dtype)), array, equal_nan=array.dtype.kind == "f"):
        raise WeightsError(f"{key}: values of type {array.dtype} do not go into {dtype} exactly; cast=True rounds them")
    return tensor


def sha256(array):
    """Hash of the values of an array, in C order."""
    return hashlib.sha256(np.ascontiguousarray(array)).hexdigest()
