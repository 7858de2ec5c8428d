"""The sums of a collection of examples on disk, so that one that was cut short goes on where it was."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from tl_reward.errors import InputError, first_line


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
