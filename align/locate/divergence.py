"""A place where the port's own code computes something else than the reference's."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Where:
    """A source line of one side: the operation, and the constructor call that gave its module its attributes."""

    file: str
    line: int
    end_line: int
    code: str
    built: Mapping[str, Any] | None = None

    def as_json(self) -> dict[str, Any]:
        built = self.built and {name: self.built[name] for name in ("file", "line", "end_line", "code")}
        return {"file": self.file, "line": self.line, "end_line": self.end_line, "code": self.code, "built": built}

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True)
class Divergence:
    """One independent difference: the step, the module whose own code it is, what differs, and both source lines.

    `error` is relative (Frobenius), on the reference's own inputs: what this module alone does wrong. Where no model is
    replayed, `module` is empty and `error` infinite.
    """

    step: str
    module: str
    what: str
    error: float
    port: Where | None
    reference: Where | None
    cause: Mapping[str, Any] | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "module": self.module or None,
            "what": self.what,
            "error": self.error if self.error < float("inf") else "inf",
            "port": self.port and self.port.as_json(),
            "reference": self.reference and self.reference.as_json(),
            "cause": self.cause,
        }
