"""reprod_log's own files: `<step>_<side>.npy` dictionaries and `<step>_diff.log` reports by its ReprodDiffHelper."""

import logging
from pathlib import Path
from typing import Any

import numpy as np

from align.record.safe_pickle import read_dictionary, save_dictionary


def save(arrays: dict[str, np.ndarray], path: Path, side: str) -> None:
    """Write a dictionary of arrays as reprod_log does, through its ReprodLogger where that can be imported.

    The package imports paddle, so the torch process writes the same format (numpy's save of a dictionary) itself.
    """
    if side != "paddle":
        save_dictionary(path, arrays)
        return
    from reprod_log import ReprodLogger

    logger = ReprodLogger()
    for name, array in arrays.items():
        logger.add(name, np.array(array))  # the logger keeps a reference: give it a copy of the mapped bytes
    aside = path.with_name(f".{path.name}")  # ends in .npy, or numpy would add it
    logger.save(str(aside))
    aside.replace(path)


def diff_log(reference: str, port: str, log: str, threshold: float, lines: list[str]) -> bool | None:
    """Compare two such files by ReprodDiffHelper at a threshold on the maximum, and add our own lines to its report.

    The answer is the package's word, None if it could not compare the files at all.
    """
    from reprod_log import ReprodDiffHelper
    from reprod_log.utils import check_print_diff

    path = Path(log)
    helper, passed, default = ReprodDiffHelper(), None, None
    logger = logging.getLogger("root")
    before = list(logger.handlers)
    try:
        # `load_info` would execute a pickle; and the package's report adds its handlers for good at every call, so that
        # each report's file would collect the lines of all later ones.
        helper.compare_info(_widened(read_dictionary(reference)), _widened(read_dictionary(port)))
        helper.report(diff_method="max", diff_threshold=threshold, path=str(path))
        passed = check_print_diff(helper.diff_dict, "max", threshold, print_func=lambda _: None)
        default = check_print_diff(helper.diff_dict, print_func=lambda _: None)
    except (AssertionError, ValueError) as error:
        path.write_text("")
        lines = [f"reprod_log cannot compare these files: {error or type(error).__name__}", *lines]
    finally:
        for handler in logger.handlers[:]:
            if handler not in before:
                logger.removeHandler(handler)
                handler.close()
    if default is not None:
        word = "passed" if default else "failed"
        lines = [f"diff_threshold {threshold:.6g} on max; at reprod_log's default (mean, 1e-6): {word}", *lines]
    with path.open("a") as file:
        file.write("".join(f"[align] {line}\n" for line in lines))
    return passed


def _widened(info: dict[str, Any]) -> dict[str, Any]:
    """Integers as int64: the package subtracts unsigned bytes, and 0 - 255 would come out as 1."""
    return {
        key: _widened(value)
        if isinstance(value, dict)
        else value.astype(np.int64)
        if value.dtype.kind in "bui"
        else value
        for key, value in info.items()
    }
