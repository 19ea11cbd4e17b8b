"""From a case to recordings: the plan, the two processes, the order in which each side records its steps."""

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from align import steps as step_modules
from align.case import NEEDS, Case
from align.errors import UsageError
from align.perturbed import PerturbedRuns
from align.plan import Plan, build, open_plan, parameters
from align.record import manifest
from align.record.manifest import Recording
from align.record.noise import RUNS
from align.record.process import Served, SideProcess
from align.record.store import Store
from align.sides import SIDES, Spec

TWIN = "float64"
HALF = ("float16", "bfloat16")


@dataclass(frozen=True)
class Options:
    """What the command line asked for."""

    case: Case
    out: Path
    steps: tuple[str, ...]
    sides: tuple[str, ...] = ("torch", "paddle")
    dtype: str = "float32"
    devices: dict[str, str] = field(default_factory=lambda: {"torch": "cpu", "paddle": "cpu"})
    pythons: dict[str, str | None] = field(default_factory=dict)
    data: Path | None = None
    weights: Path | None = None
    threads: int = 1
    tf32: bool = False
    roots: tuple[Path, ...] = ()
    modules: tuple[str, ...] = ("*",)
    reference: Path | None = None  # where the reference's recordings are, if the port is recorded elsewhere

    @property
    def folder(self) -> Path:
        return self.out / "recordings" / self.case.name

    def prefix(self, side: str, dtype: str) -> str:
        return f"{side}-{self.devices[side]}-{dtype}"


# Told (side, step, dtype, done, total) while a step runs; done == total when it is finished.
Progress = Callable[[str, str, str, int, int], None]


def order(options: Options) -> list[tuple[str, str]]:
    """(dtype, step) in the order in which a side records them: the working dtype first, then the twin."""
    working = [(options.dtype, step) for step in options.steps]
    if options.dtype == TWIN:
        return working
    return working + [(TWIN, step) for step in options.steps if step not in step_modules.WITHOUT_TWIN]


def noise_runs(options: Options) -> list[tuple[str, str, int]]:
    """(dtype, step, seed) of the reference's perturbed runs: `RUNS` in the working dtype, one in float64."""
    noisy = [step for step in options.steps if step in step_modules.NOISY]
    seeds = [(options.dtype, seed) for seed in range(RUNS)] + [(TWIN, RUNS)] * (options.dtype != TWIN)
    return [(dtype, step, seed) for step in noisy for dtype, seed in seeds]


def launch(side: str, options: Options, log: str | None = None) -> SideProcess:
    """A process of one side, as the options want it; it logs into the case's folder."""
    options.folder.mkdir(parents=True, exist_ok=True)
    return SideProcess(
        side,
        options.folder / f"{log or side}.log",
        python=options.pythons.get(side),
        device=options.devices[side],
        threads=options.threads,
        tf32=options.tf32,
        roots=options.roots,
    )


class Recorder:
    """Runs the sides' processes at the same time; the port waits where it needs what the reference recorded.

    `processes` are sides' processes that run already and stay the caller's to end: many recordings in a row then import
    each framework once. If a side fails, all are killed.
    """

    def __init__(self, options: Options, progress: Progress, processes: Mapping[str, Served] | None = None) -> None:
        self.options, self.progress = options, progress
        self._stack = ExitStack()
        self._ready: dict[tuple[str, str], threading.Event] = {item: threading.Event() for item in order(options)}
        self._stopped = threading.Event()
        self._partial: dict[tuple[str, str], Path] = {}
        self._first_error: BaseException | None = None
        self._perturbed = PerturbedRuns(noise_runs(options) if "torch" in options.sides else ())
        # Whoever brings processes along has one of each side, and wants no other.
        self._may_start = not processes and not options.case.alone
        self._helper: SideProcess | None = None
        self.plan: Plan | None = None
        self._parameters: dict[str, dict[str, Any]] = {}  # by side, what its manifests say of parameters
        self.processes: dict[str, Served] = dict(processes or {})

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._stack.close()
        # What failed is of no use to anyone, and on a full disk it would leave no room for the next run.
        manifest.sweep(self.options.folder)
        self._prune_plans()

    def process(self, side: str) -> Served:
        """The side's process, started when first asked for."""
        if side not in self.processes:
            self.processes[side] = self._stack.enter_context(launch(side, self.options))
        return self.processes[side]

    @property
    def parameters(self) -> Mapping[str, Mapping[str, Any]]:
        """By side, what is known of its tensors where they were paired: see `align.compare.weights`."""
        return self._parameters

    def run(self) -> dict[tuple[str, str], Recording]:
        """Record; the answer is every recording by (side, dtype)."""
        options = self.options
        manifest.sweep(options.folder)
        # Both import their framework at the same time, and a GPU that is not there is told at once.
        with ThreadPoolExecutor(len(options.sides)) as pool:
            list(pool.map(lambda process: process.request("environment"), map(self.process, options.sides)))
        recordings: dict[tuple[str, str], Recording] = {}
        if "torch" in options.sides:
            plan = self._plan()
        else:
            plan, recordings = self.existing()
        dtypes = list(dict.fromkeys(dtype for dtype, _ in order(options)))
        self.plan = plan
        if options.case.pair:
            options = self.options = self._paired(plan, recordings)
        for side in options.sides:
            for dtype in dtypes:
                self._partial[side, dtype] = manifest.start(options.folder, options.prefix(side, dtype))
        for (side, dtype), recording in recordings.items():
            self._partial[side, dtype] = recording.folder
        with ThreadPoolExecutor(len(options.sides)) as pool:
            futures = [pool.submit(self._record, side, plan) for side in options.sides]
        if self._first_error:
            raise self._first_error
        for future in futures:
            future.result()
        made = [(side, dtype) for side in options.sides for dtype in dtypes]
        noise = {f"torch-{options.dtype}": self._perturbed.errors()}
        for side, dtype in made:
            run = f"{side}-{dtype}"
            self.processes[side].request("close", run=run, noise=noise.get(run, {}))
        for item in made:  # not before all are whole: two of four would stand beside two of an earlier run
            recordings[item] = Recording(manifest.publish(self._partial[item]))
        self._prune(recordings)
        return recordings

    def _plan(self) -> Plan:
        options, torch = self.options, self.process("torch")
        answer = torch.request("describe", case=asdict(options.case), sides=len(options.sides))
        specs, training = (
            [Spec(**{**row, "shape": tuple(row["shape"])}) for row in answer[key]]
            for key in ("specs", "training_specs")
        )
        given = None
        if options.weights:
            given = (str(options.weights), self._read_weights(options.weights))
        return build(options.case, specs, training, options.folder, options.data, given)

    def _paired(self, plan: Plan, recordings: Mapping[tuple[str, str], Recording]) -> Options:
        """The options with the port's parameters found, if the port takes part; both sides' tables are made at once."""
        case, sides = self.options.case, self.options.sides

        processes = {side: self.process(side) for side in sides}

        def table(side: str) -> Mapping[str, Any]:
            return processes[side].request("table", case=asdict(case), plan=str(plan.folder))

        with ThreadPoolExecutor(len(sides)) as pool:
            tables = dict(zip(sides, pool.map(table, sides), strict=True))
        if "torch" in tables:
            self._parameters["torch"] = {"table": tables["torch"]["rows"]}
        else:
            self._parameters["torch"] = recordings["torch", self.options.dtype].manifest.parameters
        if "paddle" not in tables:
            return self.options
        theirs, ours = (parameters.from_json(r) for r in (self._parameters["torch"]["table"], tables["paddle"]["rows"]))
        found = parameters.pair(theirs, ours, case.mapping.get("parameters", {}))
        mapping = found.as_mapping(case.mapping.get("modules", {}))
        self._parameters["paddle"] = {**mapping, "unpaired": found.unpaired, "table": tables["paddle"]["rows"]}
        return replace(self.options, case=replace(case, mapping=mapping))

    def _read_weights(self, path: Path) -> Store:
        if not path.is_file():
            raise UsageError(f"--weights {path}: no such file")
        side = "paddle" if path.suffix == ".pdparams" else "torch"
        folder = manifest.start(self.options.folder, "weights")
        self.process(side).request(
            "read_weights", package=self.options.case.package(side), path=str(path.resolve()), folder=str(folder)
        )
        return Store(folder, "weights")

    def existing(self) -> tuple[Plan, dict[tuple[str, str], Recording]]:
        """The reference's last recordings, for a run of the port alone."""
        found = {}
        parent = self.options.reference or self.options.folder
        for dtype in dict.fromkeys(dtype for dtype, _ in order(self.options)):
            prefix = self.options.prefix("torch", dtype)
            folder = manifest.latest(parent, prefix)
            if folder is None:
                raise UsageError(f"{parent}: no recording {prefix}-*; record it first with --side torch")
            found["torch", dtype] = recording = Recording(folder)
            held = recording.manifest.steps
            lacking = [step for of, step in order(self.options) if of == dtype and step not in held]
            if lacking:
                raise UsageError(f"{folder}: holds no {', '.join(lacking)}; record the reference with these steps")
        plan = parent / f"plan-{found['torch', self.options.dtype].manifest.plan}"
        return open_plan(plan), found

    def _record(self, side: str, plan: Plan) -> None:
        try:
            self._record_steps(side, plan)
            if side == "torch":
                self._measure_noise(self.processes["torch"])
            else:
                self._help(plan)
        except BaseException as error:
            # One side cannot go on: end the other too, and report what came first.
            self._first_error = self._first_error or error
            self._stopped.set()
            for event in self._ready.values():
                event.set()
            for other in (*self.processes.values(), *filter(None, [self._helper])):
                other.kill()
            raise

    def _record_steps(self, side: str, plan: Plan) -> None:
        options, process = self.options, self.processes[side]
        todo = order(options)
        for dtype in dict.fromkeys(dtype for dtype, _ in todo):
            self.open(side, dtype, plan, self._partial[side, dtype], self._partial["torch", options.dtype])
        if side != "torch":  # first what need not wait
            todo = sorted(todo, key=lambda item: self._needed(item[1]) is not None)
        for dtype, step in todo:
            self._wait_for_reference(side, step)
            run = f"{side}-{dtype}"
            took = process.request("step", partial(self.progress, side, step, dtype), run=run, step=step)
            self.progress(side, step, dtype, 1, 1)
            if side == "torch":
                self._perturbed.took(dtype, step, took["seconds"])
                self._ready[dtype, step].set()

    def open(
        self, side: str, dtype: str, plan: Plan, folder: Path, reference: Path, process: Served | None = None
    ) -> None:
        """Have a side ready to record in `folder`; `reference` is the reference's recording in the working dtype."""
        (process or self.process(side)).request(
            "open",
            run=f"{side}-{dtype}",
            case=asdict(self.options.case),
            plan=str(plan.folder),
            dtype=dtype,
            device=self.options.devices[side],
            folder=str(folder),
            reference=str(reference),
            parameters=self._parameters.get(side, {}),
            twin=dtype == TWIN and self.options.dtype != TWIN,
            modules=self.options.modules,
        )

    def open_twins(self) -> None:
        """Both sides ready to replay in float64, on the plan of what was recorded, if anything was."""
        plan = self.plan or self._plan()
        if self.options.case.pair and not self._parameters:
            self.options = self._paired(plan, {})
        for side in SIDES:
            self.open(side, TWIN, plan, self.options.folder, self.options.folder)

    def _measure_noise(self, process: Served) -> None:
        """Perturbed runs of the reference, until none is left."""
        if not noise_runs(self.options):  # and then perhaps no twin
            return
        dtype = self.options.dtype
        asked = {
            "run": f"torch-{dtype}",
            "truth": str(self._partial["torch", TWIN]),
            "reference": str(self._partial["torch", dtype]),
        }
        self._perturbed.work(
            process,
            asked,
            lambda: not self._stopped.is_set(),
            lambda run: self.progress("torch", f"{run[1]} noise", run[0], 1, 1),
        )

    def _help(self, plan: Plan) -> None:
        """The port is recorded, and its core is free for the reference's perturbed runs."""
        if not self._may_start or "torch" not in self.options.sides:
            return
        for event in self._ready.values():
            event.wait()
        if self._stopped.is_set() or not self._perturbed.worth_a_start:
            return
        options, folder = self.options, self._partial["torch", self.options.dtype]
        with launch("torch", options, "torch-noise") as self._helper:
            self.open("torch", options.dtype, plan, folder, folder, self._helper)
            self._measure_noise(self._helper)

    def _needed(self, step: str) -> str | None:
        """The step that the reference must have recorded before the port can record this one."""
        case, dtype = self.options.case, self.options.dtype
        # In half precision a port may lack kernels, and says so at once: there its masks follow nothing.
        follows = step in case.followed and (case.alone or dtype not in HALF)
        return step if follows else NEEDS.get(step)

    def _wait_for_reference(self, side: str, step: str) -> None:
        """Block until the reference has what the step reads."""
        needed = self._needed(step)
        if side == "torch" or "torch" not in self.options.sides or needed is None:
            return
        self._ready[self.options.dtype, needed].wait()
        if self._stopped.is_set():
            raise UsageError(f"{side} side, {step}: the reference stopped before it recorded {needed}")

    def _prune(self, recordings: dict[tuple[str, str], Recording]) -> None:
        keep = {recording.folder for recording in recordings.values()}
        for side, dtype in recordings:
            manifest.prune(self.options.folder, keep, self.options.prefix(side, dtype))
        self._prune_plans()

    def _prune_plans(self) -> None:
        for path in self.options.folder.glob("plan-*"):
            if not _still_used(path, self.options.folder):
                manifest.remove(path)


def _still_used(plan: Path, folder: Path) -> bool:
    for path in folder.glob(f"*/{manifest.MANIFEST}"):
        with suppress(UsageError):  # a damaged recording is no reason for a good one to fail
            if Recording(path.parent).manifest.plan == plan.name.removeprefix("plan-"):
                return True
    return False
