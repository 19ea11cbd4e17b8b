"""Paddle's recurrent kernel with a backward in evaluation too.

`_C_ops.rnn` keeps what backward needs only where it trains: in evaluation its backward raises ("Tensor holds no
memory"), where PyTorch's goes through on a CPU. Where a gradient may be asked for, evaluation therefore runs as
training does with a dropout of 0, which computes the same, bit by bit.
"""

from typing import Any

import paddle
from paddle import _C_ops

_DROPOUT, _IS_TEST = 5, 12  # places among the kernel's arguments


def install() -> None:
    """From now on, in this process."""
    kernel = getattr(_C_ops, "rnn", None)
    if kernel is None or hasattr(kernel, "in_evaluation"):
        return

    def rnn(*args: Any) -> Any:
        if len(args) > _IS_TEST and args[_IS_TEST] and paddle.is_grad_enabled():
            args = (*args[:_DROPOUT], 0.0, *args[_DROPOUT + 1 : _IS_TEST], False, *args[_IS_TEST + 1 :])
        return kernel(*args)

    rnn.in_evaluation = True  # type: ignore[attr-defined]
    _C_ops.rnn = rnn  # type: ignore[assignment]
