"""The exponential moving average of a model's weights that the DeiT/PiT recipe evaluates beside the model.

Follows timm's `ModelEmaV3` (timm/utils/model_ema.py, Apache-2.0), with a constant decay: DeiT's is 0.99996.
Licence: Apache-2.0.
"""

import copy

import paddle
from paddle import nn


class ModelEma(nn.Layer):
    """`module` is a copy of `model`, in evaluation mode; each update moves it by (1 - decay) towards the model.

    Whatever the state dict holds takes part: floating parameters and buffers are averaged, other buffers copied. All is
    done in place, without gradient. The model's own types are kept; there is no warm-up of the decay.

    Raises ValueError unless 0 <= decay <= 1.
    """

    def __init__(self, model: nn.Layer, decay: float):
        if not 0 <= decay <= 1:
            raise ValueError(f"decay {decay} of the moving average: must be in 0..1")
        super().__init__()
        self.module = copy.deepcopy(model)
        self.module.eval()
        self.decay = decay

    @paddle.no_grad()
    def update(self, model: nn.Layer) -> None:
        """Move the average towards the present weights of `model`."""
        for average, value in self._pairs(model):
            if average.is_floating_point():
                average.lerp_(value, 1 - self.decay)  # average + (1 - decay) * (value - average)
            else:
                paddle.assign(value, average)

    @paddle.no_grad()
    def set(self, model: nn.Layer) -> None:
        """Start again from the present weights of `model`."""
        for average, value in self._pairs(model):
            paddle.assign(value, average)

    def forward(self, *args, **kwargs):
        return self.module(*args, **kwargs)

    def _pairs(self, model):
        """(average, value) of everything in the state dict."""
        return zip(self.module.state_dict().values(), model.state_dict().values(), strict=True)


def build_ema(model: nn.Layer, decay: float = 0.99996) -> ModelEma:
    """A moving average that starts from the present weights of `model`; `train_step` calls its `update(model)`."""
    return ModelEma(model, decay)
