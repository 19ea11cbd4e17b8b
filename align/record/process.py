"""The harness's end of a side's process."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, Protocol, Self

from align import errors
from align.record.copies import FORK, LEAVE, LEFT

ROOT = Path(__file__).resolve().parents[2]
# Undocumented; "5" is AVX2, and only MKL before 2020 Update 1 heeds it, so PyTorch's does not.
MKL_PATH = "MKL_DEBUG_CPU_TYPE"

NAMED = ("describe", "table")  # operations whose errors name the user's code themselves


class Served(Protocol):
    """A side that answers requests, in a process of its own or in this one."""

    @property
    def alive(self) -> bool: ...
    def request(
        self, operation: str, progress: Callable[[int, int], None] | None = None, **arguments: Any
    ) -> Mapping[str, Any]: ...
    def kill(self) -> None: ...


class SideProcess:
    """A running worker. `request` sends one operation and waits for its answer; use as a context manager."""

    def __init__(
        self,
        name: str,
        log: Path,
        *,
        python: str | None = None,
        device: str = "cpu",
        threads: int = 1,
        tf32: bool = False,
        roots: tuple[Path, ...] = (),
    ) -> None:
        self.name, self._log = name, log
        self._settings = {"device": device, "threads": threads, "tf32": tf32}
        self._copy: int | None = None
        self._number = 0  # of the last request
        started, path = module_command("align.record.worker", python)
        command = [*started, name]
        self._python = command[0]
        self._stderr = log.open("wb")
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                env=environment(threads, tf32, (*roots, Path.cwd(), *path)),
                text=True,
            )
        except OSError as error:
            raise errors.EnvironmentFault(f"--{name}-python {command[0]}: cannot start it: {error.strerror}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        """End the process at once; a half recording stays under its `.partial` name and is never taken for a whole."""
        self._process.kill()
        self.kill_copy()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._stderr):
            if stream:
                with suppress(BrokenPipeError):
                    stream.close()

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    @contextmanager
    def copied(self, roots: tuple[Path, ...] = ()) -> Iterator[None]:
        """In this block a copy of the process answers, which imports from `roots` first; how it ends is of no matter.

        Only for a process that has computed nothing: see `align.record.copies`.
        """
        self._copy = self.request(FORK, roots=[str(root) for root in roots])["process"]
        try:
            yield
        finally:
            if self._copy is not None:
                with suppress(errors.AlignError):
                    self.request(LEAVE)

    def kill_copy(self) -> None:
        """End the copy that answers now, if there is one; who waits for its answer is told."""
        if self._copy is not None:
            with suppress(ProcessLookupError):
                os.kill(self._copy, signal.SIGKILL)

    def request(
        self, operation: str, progress: Callable[[int, int], None] | None = None, **arguments: Any
    ) -> Mapping[str, Any]:
        """One operation of `align.record.worker.Worker`. Raises the AlignError that the worker met."""
        assert self._process.stdin and self._process.stdout
        self._number += 1
        message = {"operation": operation, "side": self._settings, "number": self._number, **arguments}
        with suppress(BrokenPipeError):  # it has ended; what it said is still there
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
        for line in self._process.stdout:
            if not line.endswith("\n"):  # killed while it wrote
                break
            event = self._read(line)
            if event["number"] != self._number and event["event"] != LEFT:
                continue  # what a copy was asked that died: the original finds it unread, and answers
            if event["event"] == "progress":
                if progress:
                    progress(event["done"], event["total"])
            elif event["event"] == "done":
                return event
            elif event["event"] == LEFT:
                self._copy = None
                if operation == LEAVE:
                    return event
                raise self._ended(operation, event["status"])
            else:
                if event.get("final") and self._copy is None:
                    self.kill()
                raise self._error(event, arguments.get("step", None if operation in NAMED else operation))
        raise self._died(operation)

    def _read(self, line: str) -> Mapping[str, Any]:
        """The event in a line; EnvironmentFault for an interpreter that prints something else."""
        try:
            event: Mapping[str, Any] = json.loads(line)
            if {"event", "number"} <= event.keys():
                return event
        except (ValueError, AttributeError):
            pass
        self.kill()
        raise errors.EnvironmentFault(
            f"the {self.name} process ({self._python}) said {line.strip()[:80]!r} instead of an answer; name a Python "
            f"interpreter with --{self.name}-python"
        )

    def _error(self, event: Mapping[str, Any], where: str | None) -> errors.AlignError:
        if event["kind"] == "raised":
            told = event["message"] if where is None else f"{where}: {event['message']}"
            return errors.UsageError(f"{self.name} side, {told} (traceback in {self._log})")
        kind = getattr(errors, event["kind"], errors.AlignError)
        return kind(event["message"])

    def _died(self, operation: str) -> errors.AlignError:
        return self._ended(operation, self._process.wait())

    def _ended(self, operation: str, code: int) -> errors.AlignError:
        tail = self._log.read_text(errors="replace").strip().splitlines()[-3:]
        told = " | ".join(tail) or "it printed nothing"
        return errors.EnvironmentFault(f"the {self.name} process ended during {operation} (status {code}): {told}")


def module_command(module: str, python: str | None) -> tuple[list[str], tuple[Path, ...]]:
    """How an interpreter runs a module of this project, and what PYTHONPATH needs for it.

    A project that is installed lies among other packages, which must not come before those of another interpreter.
    """
    if python is None or ROOT.name not in ("site-packages", "dist-packages"):
        return [python or sys.executable, "-m", module], (ROOT,)
    start = f"import runpy, sys; sys.path.append({str(ROOT)!r}); runpy.run_module({module!r}, None, '__main__', True)"
    return [python, "-c", start], ()


def environment(threads: int, tf32: bool, path: tuple[Path, ...]) -> dict[str, str]:
    """Variables that must be in force before a framework is imported; `path` is where imports are looked for first."""
    count = str(threads)
    fixed = {
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "OPENBLAS_NUM_THREADS": count,
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "FLAGS_cudnn_deterministic": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
        # Threads that wait should sleep: two spinning sides on two cores took five times as long.
        "OMP_WAIT_POLICY": "PASSIVE",
        "KMP_BLOCKTIME": "0",
        # glibc keeps freed memory instead of handing it back at once: 12 to 19 % faster in Paddle, and arithmetic is
        # not touched (benchmarks/README.md).
        "MALLOC_TRIM_THRESHOLD_": "1000000000",
        "MALLOC_MMAP_THRESHOLD_": "1000000000",
        "PYTHONSAFEPATH": "1",
        "PYTHONPATH": os.pathsep.join([*map(str, path), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
    environment = {**os.environ, **fixed}
    if _amd_with_avx2():
        environment.setdefault(MKL_PATH, "5")
    if tf32:
        environment.pop("NVIDIA_TF32_OVERRIDE", None)
    else:
        environment["NVIDIA_TF32_OVERRIDE"] = "0"
    return environment


@cache
def _amd_with_avx2() -> bool:
    """Where the MKL of Paddle's wheel takes its slowest code unless it is told to use AVX2 (benchmarks/README.md)."""
    try:
        told = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "AuthenticAMD" in told and " avx2 " in told
