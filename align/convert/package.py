"""Asks a side's package (`torch_ref.convert`, `paddle_impl.convert`) to read and write files of weights.

Only a framework knows its own formats and its layers' types, so this runs in that side's interpreter.
"""

import json
import os
import subprocess
from dataclasses import dataclass

from align.errors import EnvironmentFault, UsageError
from align.record.process import module_command

PACKAGES = {"torch": "torch_ref.convert", "paddle": "paddle_impl.convert"}


@dataclass(frozen=True)
class Answer:
    """What a side found in a file, and what it read from the file that it wrote.

    `sha256` and `read_back` are of each tensor in PyTorch's layout, by official key; `transposed` are the keys of those
    that the side's own format keeps transposed.
    """

    variant: str
    notes: list[str]
    sha256: dict[str, str]
    transposed: list[str]
    read_back: dict[str, str]


def ask(side: str, python: str | None, *arguments: str) -> Answer:
    """Run one action in the side's interpreter.

    Raises UsageError for weights that cannot be used, EnvironmentFault for an interpreter or a disk that cannot.
    """
    started, folders = module_command(PACKAGES[side], python)
    command = [*started, *arguments]
    path = os.pathsep.join([*map(str, folders), *filter(None, [os.environ.get("PYTHONPATH")])])
    try:
        result = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
    except OSError as error:
        raise EnvironmentFault(f"--{side}-python {command[0]}: cannot be started: {error.strerror}") from error
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    reason = lines[-1].strip() if lines else f"it ended with status {result.returncode}"
    if result.returncode == 2:
        raise UsageError(reason)
    if result.returncode == 3:
        raise EnvironmentFault(reason)
    if result.returncode:
        raise EnvironmentFault(
            f"the {side} side failed in {command[0]}: {reason}; name an interpreter that has what it needs with "
            f"--{side}-python"
        )
    try:
        return Answer(**json.loads(result.stdout.splitlines()[-1]))
    except (IndexError, ValueError, TypeError):
        raise EnvironmentFault(
            f"{command[0]} did not answer for the {side} side; name a Python interpreter with --{side}-python"
        ) from None
