"""The sums of a collection of examples on disk, so that one that was cut short goes on where it was."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from tl_reward.analyses.examples import passes
from tl_reward.analyses.examples.passes import Task
from tl_reward.errors import InputError, first_line


def identity_of(task: Task, interventions: Any) -> dict[str, str]:
    """What a saved state has to be of to be gone on from; interventions by their names alone, weights by the first row of each."""
    model, encoded = task.model, task.encoded
    rows = [(row.ids, row.response_start) for row in encoded.rows]
    weights = hashlib.sha256()
    for parameter in model.parameters():
        weights.update(parameter[(0,) * (parameter.ndim - 1)].detach().float().cpu().numpy().tobytes())
    return {
        "pairs": _hash([rows, encoded.chosen, encoded.rejected, [pair.objective for pair in encoded.pairs]]),
        "neurons": _hash(task.neurons.to_json()),
        "site": task.site,
        "where": task.where,
        "seed": str(task.seed),
        "model": str(model.cfg.model_name),
        "weights": weights.hexdigest(),
        "interventions": _hash([getattr(getattr(each, "function", type(each)), "__qualname__", "") for each in interventions]),
        "chunk": str(passes.CHUNK),
    }


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


class Saved(NamedTuple):
    """The sums, and how many chunks of both passes it has behind it."""

    state: dict[str, Tensor]
    done: int


def read_state(path: Path | None, identity: Mapping[str, str], device: Any) -> Saved:
    """An empty state where there is no file. Raises InputError where it is of something else."""
    if path is None or not path.exists():
        return Saved({}, 0)
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
            state = {key: file.get_tensor(key).to(device) for key in file.keys()}  # noqa: SIM118 - it is no dict
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} is no saved state of examples ({first_line(error)})") from None
    differs = [name for name, value in identity.items() if about.get(name) != value]
    if differs:
        raise InputError(f"{path} is a saved state of something else (other {', '.join(differs)}); delete it to start anew")
    return Saved(state, int(about["done"]))


def write_state(path: Path | None, identity: Mapping[str, str], state: Mapping[str, Tensor], done: int) -> None:
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}-new")
    save_file({key: value.cpu().contiguous() for key, value in state.items()}, scratch, {**identity, "done": str(done)})
    os.replace(scratch, path)  # whole or not at all
