"""The words in which the recipe's tests speak to either framework, and the small network they train.

`open_side("torch_ref")` or `open_side("paddle_impl")` imports that side's framework: call it in a process of its own.
Arrays go in and come out as numpy, with the reference's names and layout.
"""

import importlib
from types import SimpleNamespace

import numpy as np

WIDTH, TOKENS, CLASSES = 6, 3, 7
# Every kind of parameter the recipe tells apart. `unused` takes no part in forward, `frozen` is not trainable.
PARAMETERS = {
    "pos_embed": (1, TOKENS, WIDTH),
    "norm.weight": (WIDTH,),
    "norm.bias": (WIDTH,),
    "square.weight": (WIDTH, WIDTH),
    "square.bias": (WIDTH,),
    "fc.weight": (CLASSES, WIDTH),
    "fc.bias": (CLASSES,),
    "unused.weight": (4, WIDTH),
    "unused.bias": (4,),
    "frozen.weight": (2, WIDTH),
    "frozen.bias": (2,),
}
DECAYED = ("square.weight", "fc.weight", "unused.weight")


def initial_value(name):
    """The starting value of one parameter."""
    return np.random.default_rng(list(PARAMETERS).index(name)).standard_normal(PARAMETERS[name])


def gradient_value(name, step):
    """The gradient handed to one parameter at one step; None for those that take no part."""
    if name.startswith(("unused", "frozen")):
        return None
    return np.random.default_rng((1 + step, list(PARAMETERS).index(name))).standard_normal(PARAMETERS[name])


class TorchSide:
    def __init__(self, dtype):
        import torch

        self.framework = torch
        self.tensor = torch.tensor
        torch.set_default_dtype(getattr(torch, dtype))

    def leaf(self, array):
        return self.tensor(array).requires_grad_()

    def numpy(self, tensor):
        return tensor.detach().numpy().copy()

    def network(self):
        torch = self.framework

        class Network(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.pos_embed = torch.nn.Parameter(torch.zeros(1, TOKENS, WIDTH))
                self.norm = torch.nn.LayerNorm(WIDTH)
                self.square = torch.nn.Linear(WIDTH, WIDTH)
                self.fc = torch.nn.Linear(WIDTH, CLASSES)
                self.unused = torch.nn.Linear(WIDTH, 4)
                self.frozen = torch.nn.Linear(WIDTH, 2).requires_grad_(False)

            def no_weight_decay(self):
                return {"pos_embed"}

            def forward(self, x):  # (N, TOKENS, WIDTH)
                return self.fc(self.square(self.norm(x + self.pos_embed)).mean(1))

        network = Network()
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                parameter.copy_(self.tensor(initial_value(name)))
        return network

    def parameters(self, network):
        return {name: self.numpy(parameter) for name, parameter in network.named_parameters()}

    def load(self, network, arrays):
        network.load_state_dict({name: self.tensor(array) for name, array in arrays.items()})

    def set_gradients(self, network, step, value_of=gradient_value):
        for name, parameter in network.named_parameters():
            value = value_of(name, step)
            parameter.grad = None if value is None else self.tensor(value).to(parameter.dtype)


class PaddleSide:
    def __init__(self, dtype):
        import paddle

        self.framework = paddle
        self.tensor = paddle.to_tensor
        paddle.set_default_dtype(dtype)

    def leaf(self, array):
        return self.framework.to_tensor(array, stop_gradient=False)

    def numpy(self, tensor):
        return tensor.numpy().copy()

    def network(self):
        paddle = self.framework

        class Network(paddle.nn.Layer):
            def __init__(self):
                super().__init__()
                self.pos_embed = self.create_parameter((1, TOKENS, WIDTH))
                self.norm = paddle.nn.LayerNorm(WIDTH, epsilon=1e-5)
                self.square = paddle.nn.Linear(WIDTH, WIDTH)
                self.fc = paddle.nn.Linear(WIDTH, CLASSES)
                self.unused = paddle.nn.Linear(WIDTH, 4)
                self.frozen = paddle.nn.Linear(WIDTH, 2)
                for parameter in self.frozen.parameters():
                    parameter.stop_gradient = True

            def no_weight_decay(self):
                return {"pos_embed"}

            def forward(self, x):  # (N, TOKENS, WIDTH)
                return self.fc(self.square(self.norm(x + self.pos_embed)).mean(1))

        network = Network()
        for name, parameter in network.named_parameters():
            parameter.set_value(self._turned(name, initial_value(name)).astype(paddle.get_default_dtype()))
        return network

    def parameters(self, network):
        return {name: self._turned(name, self.numpy(parameter)) for name, parameter in network.named_parameters()}

    def load(self, network, arrays):
        network.set_state_dict({name: self._turned(name, array) for name, array in arrays.items()})

    def set_gradients(self, network, step, value_of=gradient_value):
        for name, parameter in network.named_parameters():
            value = value_of(name, step)
            parameter.clear_gradient(set_to_zero=False)
            if value is not None:
                parameter.grad = self.tensor(self._turned(name, value)).astype(parameter.dtype)

    def _turned(self, name, array):
        """Between the layouts of a Linear's weight: (out, in) in PyTorch, (in, out) in Paddle; the rest as it is."""
        return np.ascontiguousarray(array.T) if name.endswith(".weight") and not name.startswith("norm") else array


def open_side(package, dtype="float64"):
    """(framework words, recipe modules) of one package."""
    words = {"torch_ref": TorchSide, "paddle_impl": PaddleSide}[package](dtype)
    parts = ("data", "losses", "metrics", "optim", "train")
    return words, SimpleNamespace(**{part: importlib.import_module(f"{package}.{part}") for part in parts})
