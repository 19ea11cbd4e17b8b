"""The words in which the tests of PiT speak to either framework.

`open_side("torch_ref")` or `open_side("paddle_impl")` imports that side's framework: call it in a process of its own.
Arrays go in and come out as numpy, in the reference's layout: a linear layer's weight is (out, in).
"""

import importlib

import numpy as np


class TorchSide:
    def __init__(self, dtype):
        import torch

        torch.set_default_dtype(getattr(torch, dtype))
        torch.set_num_threads(1)
        torch.manual_seed(0)
        self.no_grad = torch.no_grad
        self.tensor = torch.tensor
        self.linear, self.conv, self.dropout = torch.nn.Linear, torch.nn.Conv2d, torch.nn.Dropout
        self.float32 = torch.float32
        self.skeleton = lambda: torch.device("meta")  # models built within have shapes, and no values

    def modules(self, model):
        return dict(model.named_modules())

    def shapes(self, model):
        return {name: list(value.shape) for name, value in model.state_dict().items()}

    def numpy(self, tensor):
        return tensor.detach().numpy().copy()

    def state(self, model):
        return {name: self.numpy(value) for name, value in model.state_dict().items()}

    def load(self, model, state):
        model.load_state_dict({name: self.tensor(value) for name, value in state.items()})

    def gradients(self, model):
        return {name: self.numpy(parameter.grad) for name, parameter in model.named_parameters()}


class PaddleSide:
    def __init__(self, dtype):
        import paddle

        paddle.set_default_dtype(dtype)
        paddle.seed(0)
        self.no_grad = paddle.no_grad
        self.tensor = paddle.to_tensor
        self.linear, self.conv, self.dropout = paddle.nn.Linear, paddle.nn.Conv2D, paddle.nn.Dropout
        self.float32 = paddle.float32
        self.skeleton = paddle.LazyGuard  # models built within have shapes, and no values

    def modules(self, model):
        return dict(model.named_sublayers(include_self=True))

    def shapes(self, model):
        shapes = {name: list(value.shape) for name, value in model.state_dict().items()}
        return {name: shape[::-1] if name in self._linear_weights(model) else shape for name, shape in shapes.items()}

    def numpy(self, tensor):
        return tensor.numpy().copy()

    def state(self, model):
        return self._turned(model, {name: value.numpy() for name, value in model.state_dict().items()})

    def load(self, model, state):
        missing, unexpected = model.set_state_dict(self._turned(model, state))
        assert not missing, missing
        assert not unexpected, unexpected

    def gradients(self, model):
        return self._turned(model, {name: parameter.grad.numpy() for name, parameter in model.named_parameters()})

    def _linear_weights(self, model):
        return {f"{name}.weight" for name, layer in self.modules(model).items() if isinstance(layer, self.linear)}

    def _turned(self, model, state):
        """Between (in, out) and (out, in), decided by the type of the owner: square matrices have no shape to go by."""
        linear = self._linear_weights(model)
        return {name: np.ascontiguousarray(value.T) if name in linear else value for name, value in state.items()}


def open_side(package, dtype="float64"):
    """(framework words, the package's `pit` module)."""
    words = {"torch_ref": TorchSide, "paddle_impl": PaddleSide}[package](dtype)
    return words, importlib.import_module(f"{package}.pit")
