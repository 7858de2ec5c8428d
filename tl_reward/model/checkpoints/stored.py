"""What a checkpoint's weight files hold, read from their headers, against what its config asks for: before memory is taken for either."""

import json
from collections.abc import Set
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open

from tl_reward.errors import InputError
from tl_reward.model.checkpoints.folders import refused
from tl_reward.model.conversion import hint_for, is_leftover

_WHOLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_FLOATS = ("F64", "F32", "F16", "BF16")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


class Header(NamedTuple):
    dtype: str
    shape: tuple[int, ...]


def check_stored(folder: Path, config: Any, name: str, kind: Any, may_lack: Set[str]) -> int:
    """Compares names and shapes of the stored weights with those of the architecture. Gives the number of numbers in all its weights.

    Args:
        kind: the class that will load the weights, such as `AutoModelForSequenceClassification`.
        may_lack: weights that may be missing, or of another shape.

    Raises:
        InputError: no safetensors files, a header that lies, weights that are missing, of another shape, quantised, or without a place.
    """
    stored = headers(weight_files(folder, name), name)
    layers = config.num_hidden_layers
    if layers > len(stored):
        raise InputError(f"{name}: config.json asks for {layers} layers, and the files hold {len(stored)} weights in all")
    with refused(f"{name}: config.json says what no model of its kind can be"), torch.device("meta"):
        model = kind.from_config(config, trust_remote_code=False)
    expected = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    prefix = model.base_model_prefix  # the files of a base may leave it out
    placed = {key if key in expected or f"{prefix}.{key}" not in expected else f"{prefix}.{key}": header for key, header in stored.items()}
    unknown = sorted(key for key in placed.keys() - expected.keys() if not is_leftover(key) and key not in may_lack)
    if unknown:
        raise InputError(
            f"{name}: {len(unknown)} weights in the files have no place in this {config.model_type} of {layers} layers "
            f"({', '.join(unknown[:3])}{', …' if len(unknown) > 3 else ''}){hint_for(unknown)}"
        )
    for key, header in placed.items():
        if key in may_lack or key not in expected:
            continue
        if header.shape != expected[key]:
            raise InputError(f"{name}: {key} is {_shape(header.shape)} in the file, and config.json asks for {_shape(expected[key])}")
        if header.dtype not in _FLOATS:
            raise InputError(f"{name}: {key} is stored as {header.dtype}; quantised weights are not supported: convert them to bfloat16")
    return sum(map(prod, expected.values()))


def weight_files(folder: Path, name: str) -> list[Path]:
    """The safetensors files that transformers reads, each of them in the folder itself."""
    if (folder / _WHOLE).exists():
        return [folder / _WHOLE]
    if (folder / _INDEX).exists():
        with refused(f"{name}: {_INDEX} is not readable"):
            files = sorted(set(json.loads((folder / _INDEX).read_text(encoding="utf-8"))["weight_map"].values()))
            outside = [file for file in files if Path(file).name != file or not file.endswith(".safetensors")]
        if outside:
            raise InputError(f"{name}: {_INDEX} names {outside[0]!r}; weights are safetensors files in the folder itself")
        return [folder / file for file in files]
    pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    if pickles:
        raise InputError(
            f"{name}: weights could not be loaded: {pickles[0]} is a pickle, which can run code. Convert it where you trust it: load it "
            "with transformers, and save_pretrained() writes safetensors"
        )
    raise InputError(f"{name}: weights could not be loaded: no {_WHOLE} there, nor {_INDEX}")


def headers(files: list[Path], name: str) -> dict[str, Header]:
    """Each weight's type and shape. safetensors compares the header with the length of the file."""
    found: dict[str, Header] = {}
    for path in files:
        with refused(f"{name}: {path.name} is damaged, or no safetensors file"), safe_open(path, "pt") as file:
            parts = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118 - it is no mapping
            found |= {key: Header(part.get_dtype(), tuple(part.get_shape())) for key, part in parts.items()}
    return found


def _shape(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "a number"
