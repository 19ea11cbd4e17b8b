"""From a difference to its proven cause: hypotheses of a registry are applied, and the one that leaves noise is it."""

from align.diagnose.cause import Cause, Hypothesis, Treatment
from align.diagnose.evidence import Evidence
from align.diagnose.prove import diagnose

__all__ = ["Cause", "Evidence", "Hypothesis", "Treatment", "diagnose"]
