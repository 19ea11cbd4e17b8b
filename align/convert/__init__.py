"""Weights from one framework's file to another's: what `align convert` does."""

from align.convert.conversion import KINDS, Conversion, convert

__all__ = ["KINDS", "Conversion", "convert"]
