"""The state of a training run in one file, from which either framework goes on.

A .safetensors file with the names and the layout of PyTorch: `model/<name>`, `ema/<name>`, and what the optimizer
keeps, `optimizer/<parameter>/<slot>`. Its metadata hold the number of updates done, from which the schedule follows,
and the caller's own facts. Random generators have no state here: a run that is to be resumed seeds them by the epoch
and the place in it (`loader.py`).

Origin: written for this project.
Licence: Apache-2.0
"""

import json
from pathlib import Path

from paddle_impl.checkpoint import WeightsError, read_metadata, read_safetensors, write_checkpoint
from paddle_impl.optim import load_optimizer_state, optimizer_state
from paddle_impl.weights import load_reference_state, reference_state

KEY = "training-state/1"  # of the one entry of metadata: with two, their order in the file would be random


def save_training_state(path, model, optimizer, schedule, ema=None, facts=None):
    """Write all that training goes on from, aside first and then moved into place.

    schedule: a `CosineSchedule`. facts: a dictionary that JSON can hold, given back by `load_training_state`. `path`
    ends in .safetensors. Raises WeightsError if the file cannot be written.
    """
    if Path(path).suffix != ".safetensors":
        raise WeightsError(f"{path}: a training state is a .safetensors file; give it that suffix")
    sections = {"model": reference_state(model), "optimizer": optimizer_state(optimizer, model)}
    if ema is not None:
        sections["ema"] = reference_state(ema.module)
    arrays = {f"{section}/{name}": array for section, state in sections.items() for name, array in state.items()}
    about = {"iteration": schedule.iteration, "ema": ema is not None, "facts": facts or {}}
    write_checkpoint(path, arrays, {KEY: json.dumps(about)})


def read_training_facts(path):
    """The facts that were saved with a training state, and "iteration", the number of updates done.

    Only the header is read. Raises WeightsError if `path` is not a whole training state.
    """
    about = _about(path)
    return about["facts"] | {"iteration": about["iteration"]}


def load_training_state(path, model, optimizer, schedule, ema=None):
    """Load what `save_training_state` wrote, of either framework, into newly built parts; returns its facts.

    Raises WeightsError, naming the file: no training state, truncated, of another model or optimizer, or with an
    average against one without. The model is then as it was; build the other parts anew.
    """
    about = _about(path)
    if about["ema"] != (ema is not None):
        there, here = ("with", "without") if about["ema"] else ("without", "with")
        raise WeightsError(f"{path}: saved {there} an average of the weights, to be resumed {here} one")
    arrays = read_safetensors(path, [])
    sections = {"model": {}, "optimizer": {}, "ema": {}}
    for key, array in arrays.items():
        section, _, name = key.partition("/")
        if section not in sections:
            raise WeightsError(f"{path}: {key!r} is no part of a training state")
        sections[section][name] = array
    before = reference_state(model)
    try:
        load_reference_state(model, sections["model"])
        if ema is not None:
            load_reference_state(ema.module, sections["ema"])
        load_optimizer_state(optimizer, model, sections["optimizer"])
    except ValueError as error:
        load_reference_state(model, before)
        raise WeightsError(f"{path}: does not fit this training run: {error}") from error
    schedule.resume(about["iteration"])
    return about["facts"]


def _about(path):
    metadata = read_metadata(path)
    if KEY not in metadata:
        raise WeightsError(f"{path}: no training state ({KEY}); for weights alone use them as pretrained ones")
    return json.loads(metadata[KEY])
