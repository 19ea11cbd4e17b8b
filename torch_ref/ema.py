"""The exponential moving average of a model's weights that the DeiT/PiT recipe evaluates beside the model.

timm's own (`ModelEmaV3`, timm/utils/model_ema.py), with a constant decay: DeiT's is 0.99996. Licence: Apache-2.0.
"""

from timm.utils import ModelEmaV3
from torch import nn


class ModelEma(ModelEmaV3):
    """`module` is a copy of `model`, in evaluation mode; each update moves it by (1 - decay) towards the model.

    Whatever the state dict holds takes part: floating parameters and buffers are averaged, other buffers copied. All is
    done in place, without gradient. The model's own types are kept; there is no warm-up of the decay.

    Raises ValueError unless 0 <= decay <= 1.
    """

    def __init__(self, model: nn.Module, decay: float):
        if not 0 <= decay <= 1:
            raise ValueError(f"decay {decay} of the moving average: must be in 0..1")
        # no stochastic rounding, timm's default for bfloat16: it draws random numbers
        super().__init__(model, decay=decay, stochastic_rounding=False)


def build_ema(model: nn.Module, decay: float = 0.99996) -> ModelEma:
    """A moving average that starts from the present weights of `model`; `train_step` calls its `update(model)`."""
    return ModelEma(model, decay)
