"""What a checkpoint's weight files hold, read from their headers, against what its config asks for: before memory is taken for either."""

import json
from collections.abc import Set
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open

from tl_reward.errors import InputError
from tl_reward.model.checkpoints.folders import PAGE, refused
from tl_reward.model.conversion import hint_for, is_leftover

_WHOLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_FLOATS = ("F64", "F32", "F16", "BF16")
_PICKLE = (
    "is a pickle, which can run code. Convert it where you trust it: load it with transformers, and save_pretrained() writes safetensors"
)
# What a folder without safetensors files may hold, the likeliest first, and what makes them of it.
_OTHERS = {
    "*-of-*.safetensors": f"is a part of several, and {_INDEX}, which names them all, is not there: download it too",
    **dict.fromkeys(("*.bin", "*.pt", "*.pth", "*.ckpt"), _PICKLE),
    "*.gguf": "is GGUF, whose weights are mostly quantised: load the checkpoint that it was made from",
    "global_step*": "is DeepSpeed's: its zero_to_fp32.py writes the weights as one file",
    **dict.fromkeys(
        ("*.h5", "*.msgpack", "*.onnx"), "is of another library than PyTorch: load it with transformers, and save_pretrained()"
    ),
}


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
            raise InputError(
                f"{name}: {key} is stored as {header.dtype}; quantised weights are not supported: convert them to bfloat16 ({PAGE})"
            )
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
        lacking = next((file for file in files if not (folder / file).exists()), None)
        if lacking is not None:
            raise InputError(f"{name}: {_INDEX} names {lacking}, which is not there: the download is not complete")
        return [folder / file for file in files]
    for pattern, said in _OTHERS.items():
        if found := sorted(path.name for path in folder.glob(pattern)):
            raise InputError(f"{name}: weights could not be loaded: {found[0]} {said} ({PAGE})")
    raise InputError(f"{name}: weights could not be loaded: no {_WHOLE} there, nor {_INDEX}; save_pretrained() writes them ({PAGE})")


def headers(files: list[Path], name: str) -> dict[str, Header]:
    """Each weight's type and shape. safetensors compares the header with the length of the file."""
    found: dict[str, Header] = {}
    for path in files:
        _refuse_pointer(path, name)
        with refused(f"{name}: {path.name} is damaged, or no safetensors file: download it again"), safe_open(path, "pt") as file:
            parts = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118 - it is no mapping
            found |= {key: Header(part.get_dtype(), tuple(part.get_shape())) for key, part in parts.items()}
    return found


def _refuse_pointer(path: Path, name: str) -> None:
    with refused(f"{name}: {path.name} is not readable"), path.open("rb") as file:
        if file.read(24) == b"version https://git-lfs.":
            raise InputError(f"{name}: {path.name} is a pointer of Git LFS, and not the file itself: git lfs pull fetches it")


def _shape(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "a number"
