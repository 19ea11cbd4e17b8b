"""One word for what the frameworks call differently: the settings of their layers, and how a value is carried over.

Sources: the constructors of `torch.nn` and `paddle.nn` layers, as their instances hold the arguments. Paddle's momentum
is the part of the old that is kept, PyTorch's the part of the new that is taken.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Attributes = Mapping[str, Any]


@dataclass(frozen=True)
class Setting:
    """A setting in both frameworks' terms. `torch` and `paddle` read it; `write` gives Paddle's attributes of a value.

    `id` may hold `{kind}`, the kind of layer.
    """

    word: str
    id: str
    torch: Callable[[Attributes], Any]
    paddle: Callable[[Attributes], Any]
    write: Callable[[Any, Attributes], dict[str, Any]]  # of the reference's value and attributes


@dataclass(frozen=True)
class Difference:
    """A setting that both sides have, not alike. `attributes` would make the port's the reference's."""

    word: str
    id: str
    port: Any
    reference: Any
    attributes: dict[str, Any]
    own: str  # the port's attribute


def _plain(word: str, torch: str, paddle: str, id: str | None = None) -> Setting:
    return Setting(
        word, id or word.replace(" ", "-"), lambda a: a[torch], lambda a: a[paddle], lambda value, _: {paddle: value}
    )


def _mapped(
    word: str, id: str, torch: str, paddle: str, there: Callable[[Any], Any], back: Callable[[Any], Any]
) -> Setting:
    """A setting in Paddle's terms; `there` takes PyTorch's value to Paddle's, `back` writes it."""
    return Setting(word, id, lambda a: there(a[torch]), lambda a: a[paddle], lambda value, _: {paddle: back(value)})


_EXACT = "EXPLICIT"  # Paddle: padding in numbers, not by a rule's name


def _per_axis(padding: Any, axes: int) -> Any:
    if isinstance(padding, (int, float)):
        return [int(padding)] * 2 * axes
    if isinstance(padding, list) and len(padding) == axes:
        return [int(item) for item in padding for _ in range(2)]
    return padding


def _axes(attributes: Attributes) -> int:
    kernel = attributes.get("kernel_size", attributes.get("_kernel_size"))
    return len(kernel) if isinstance(kernel, list) else 2


def _padding(attributes: Attributes) -> Any:
    if attributes.get("padding_mode", attributes.get("_padding_mode")) != "zeros":
        return _per_axis(attributes.get("padding", attributes.get("_padding")), _axes(attributes))
    return _per_axis(attributes.get("_updated_padding", attributes.get("padding")), _axes(attributes))


def _write_padding(theirs: Attributes) -> dict[str, Any]:
    """Paddle pads with zeros in the convolution, and with anything else before it."""
    padding, mode = _padding(theirs), theirs.get("padding_mode", "zeros")
    before = {"_padding_mode": mode, "_padding_algorithm": _EXACT}
    if mode == "zeros":
        return before | {"_updated_padding": padding}
    none = [0] * len(padding) if isinstance(padding, list) else 0
    return before | {
        "_updated_padding": none,
        "_reversed_padding_repeated_twice": theirs["_reversed_padding_repeated_twice"],
    }


SETTINGS = (
    _plain("epsilon", "eps", "_epsilon", "{kind}-epsilon"),
    _mapped("momentum", "{kind}-momentum", "momentum", "_momentum", lambda m: m and 1 - m, lambda m: m),
    _plain("stride", "stride", "_stride"),
    _plain("stride", "stride", "stride"),
    Setting(
        "padding",
        "padding",
        lambda a: _padding(a) if "dilation" in a and "groups" in a else a["padding"],
        lambda a: _padding(a) if "_updated_padding" in a else a["padding"],
        lambda value, theirs: _write_padding(theirs) if "groups" in theirs else {"padding": value},
    ),
    Setting(
        "padding mode",
        "padding-mode",
        lambda a: a["padding_mode"],
        lambda a: a["_padding_mode"],
        lambda _, theirs: _write_padding(theirs),
    ),
    _plain("output padding", "output_padding", "output_padding"),
    _plain("dilation", "dilation", "_dilation"),
    _plain("groups", "groups", "_groups"),
    _plain("groups", "num_groups", "_num_groups"),
    _plain("kernel size", "kernel_size", "ksize"),
    _plain("ceil mode", "ceil_mode", "ceil_mode"),
    _mapped("exclusive", "count-include-pad", "count_include_pad", "exclusive", lambda v: not v, lambda v: v),
    _plain("divisor", "divisor_override", "divisor"),
    _mapped("approximate", "approximate-{kind}", "approximate", "_approximate", lambda v: v == "tanh", lambda v: v),
    _plain("negative slope", "negative_slope", "_negative_slope"),
    _plain("alpha", "alpha", "_alpha"),
    _plain("beta", "beta", "_beta"),
    _plain("threshold", "threshold", "_threshold"),
    _plain("rate", "p", "p", "dropout-rate"),
    Setting(
        "mode",
        "dropout-mode",
        lambda a: a["p"] is not None and "upscale_in_train",
        lambda a: a["mode"],
        lambda v, _: {"mode": v},
    ),
    _plain("axis", "dim", "_axis", "wrong-axis"),
    _plain("align_corners", "align_corners", "align_corners", "align-corners"),
    Setting(
        "align_mode",
        "align-mode",
        lambda a: 0 if "align_corners" in a else a["align_mode"],
        lambda a: a["align_mode"],
        lambda v, _: {"align_mode": v},
    ),
    _plain("mode", "mode", "mode", "interpolation-mode"),
    _plain("scale factor", "scale_factor", "scale_factor"),
    _plain("size", "size", "size"),
    _plain("output size", "output_size", "_output_size"),
    _plain("normalized shape", "normalized_shape", "_normalized_shape"),
    _plain("padding index", "padding_idx", "_padding_idx"),
    _plain("upscale factor", "upscale_factor", "_upscale_factor"),
    _plain("start axis", "start_dim", "start_axis"),
    _plain("stop axis", "end_dim", "stop_axis"),
    _plain("heads", "num_heads", "num_heads", "num-heads"),
    _plain("training", "training", "training", "training-mode"),
)


def kind(name: str) -> str:
    """The kind of layer in kebab case, without the number of axes: `LayerNorm` is `layer-norm`, `Conv2D` is `conv`."""
    bare = re.sub(r"\d[dD]$", "", name)
    return re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", "-", bare).lower()


def differences(port: Mapping[str, Any], reference: Mapping[str, Any]) -> Iterator[Difference]:
    """The settings in which two modules differ; of users' classes, attributes of the same name."""
    ours, theirs = port.get("attributes", {}), reference.get("attributes", {})
    if port.get("framework") and reference.get("framework"):
        if kind(port["framework"]) != kind(reference["framework"]):
            return
        yield from _of_layers(kind(port["framework"]), ours, theirs)
    if port.get("framework") and port["framework"] == port["class"]:
        return
    for name, value in ours.items():
        if name.startswith("_") or name not in theirs or _alike(value, theirs[name]):
            continue
        if _same_type(value, theirs[name]):
            yield Difference(name, name.replace("_", "-"), value, theirs[name], {name: theirs[name]}, name)


def _of_layers(layer: str, ours: Attributes, theirs: Attributes) -> Iterator[Difference]:
    for setting in SETTINGS:
        try:
            port, reference = setting.paddle(ours), setting.torch(theirs)
        except KeyError:
            continue
        if reference is None or (reference is False and setting.word == "mode") or _alike(port, reference):
            continue
        if setting.word == "stride" and port is None:  # Paddle's pooling: as the kernel
            port = ours.get("ksize")
            if _alike(port, reference):
                continue
        if isinstance(port, list) and isinstance(reference, int):
            reference = [reference] * len(port)
        attributes = setting.write(reference, theirs)
        yield Difference(
            setting.word, setting.id.format(kind=layer), port, reference, attributes, next(iter(attributes))
        )


def _alike(first: Any, second: Any) -> bool:
    if isinstance(first, (int, float)) and isinstance(second, (int, float)):
        return abs(first - second) <= 2.0**-20 * max(abs(first), abs(second))
    if isinstance(first, list) and not isinstance(second, list):
        return all(_alike(item, second) for item in first)
    if isinstance(second, list) and not isinstance(first, list):
        return all(_alike(first, item) for item in second)
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(_alike, first, second))
    return bool(first == second)


def _same_type(first: Any, second: Any) -> bool:
    numbers = (int, float)
    return type(first) is type(second) or (isinstance(first, numbers) and isinstance(second, numbers))
