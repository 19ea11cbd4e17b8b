"""Reproducibility alignment harness: proves that a PaddlePaddle port computes what its PyTorch reference computes.

Importing this package imports neither framework: each side runs in a process of its own (`align.record.worker`).
"""

from align.probing import probe

__all__ = ["probe"]
__version__ = "0.1.0"
