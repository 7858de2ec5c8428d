"""What a checkpoint's weight files hold, read from their headers, against what its config asks for: before memory is taken for either."""

import json
import re
from collections.abc import Mapping, Sequence, Set
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open

from tl_reward.errors import InputError
from tl_reward.model import architectures
from tl_reward.model.checkpoints.folders import PAGE, refused
from tl_reward.model.conversion import hint_for, is_leftover

_WHOLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_HEAD = "value_head.safetensors"  # LLaMA-Factory writes a head into a file of its own
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


class Stored(NamedTuple):
    """What a checkpoint's files hold.

    Attributes:
        trunk: the weights of the language model, by the names of its architecture.
        renames: what turns the names in the files into these, as patterns, where they differ by what they begin with.
        head: all others, but `left`, which no reward depends on.
        embedding: the name of the output embedding in the files, or of the input embedding where the config says that they are one; None
            where there is none of its own, and it should have one.
    """

    trunk: Mapping[str, Header]
    renames: Mapping[str, str]
    head: Mapping[str, Header]
    left: Mapping[str, Header]
    embedding: str | None


def stored_weights(folder: Path, config: Any, name: str) -> Stored:
    """The weights in a checkpoint's files, from their headers, sorted into trunk and head.

    Raises:
        InputError: no safetensors files, or a header that lies.
    """
    files = weight_files(folder, name)
    found = headers(files, name)
    embedding = next(weight.hf for weight in architectures.architecture_of(config).weights(config) if "embed.W_E" in weight.lens)
    base, _, bare = embedding.partition(".")
    # A reward model of its own class may have its trunk under another name, or under two.
    prefixes = sorted(
        (key.removesuffix(bare) for key in found if key == bare or key.endswith(f".{bare}")), key=lambda each: (len(each), each)
    )
    prefix = prefixes[0] if prefixes else f"{base}."
    tops = {weight.hf.split(".")[1] for weight in architectures.architecture_of(config).weights(config) if weight.hf.startswith(f"{base}.")}
    trunk, head, left = {}, {}, {}
    for key, header in found.items():
        inside = key.startswith(prefix) and key.removeprefix(prefix).split(".")[0] in tops
        if inside:
            trunk[f"{base}.{key.removeprefix(prefix)}"] = header
        elif is_leftover(key) or _is_copy(key, prefixes[1:], prefix, found, files):
            left[key] = header
        else:
            head[key] = header
    tied = f"{prefix}{bare}" if getattr(config, "tie_word_embeddings", False) else None
    output = next((key for key in sorted(found) if key.endswith(("lm_head.weight", "embed_out.weight"))), tied)
    renames = {} if prefix in ("", f"{base}.") else {f"^{re.escape(prefix)}": f"{base}."}
    return Stored(trunk, renames, head, left, output)


def _is_copy(key: str, others: Sequence[str], prefix: str, found: Mapping[str, Header], files: Sequence[Path]) -> bool:
    """Whether a weight is a trunk's under its second name (`self.model = model; self.transformer = model.model`). Of norms, which are
    small, the numbers are compared too."""
    twins = [prefix + key.removeprefix(other) for other in others if key.startswith(other)]
    return any(
        found.get(twin) == found[key]
        and (len(found[key].shape) > 1 or torch.equal(read_weight(files, key, "cpu"), read_weight(files, twin, "cpu")))
        for twin in twins
    )


def check_stored(stored: Stored, config: Any, name: str, kind: Any, may_lack: Set[str], head: Set[str] = frozenset()) -> int:
    """Compares names and shapes of the stored weights with those of the architecture. Gives the number of numbers in all its weights.

    Args:
        kind: the class that will load the weights, such as `AutoModelForSequenceClassification`.
        may_lack: weights that may be missing, or of another shape.
        head: weights that are read apart.

    Raises:
        InputError: weights that are missing, of another shape, quantised, or without a place.
    """
    every = {**stored.trunk, **stored.head, **stored.left}
    layers = config.num_hidden_layers
    if layers > len(every):
        raise InputError(f"{name}: config.json asks for {layers} layers, and the files hold {len(every)} weights in all")
    with refused(f"{name}: config.json says what no model of its kind can be"), torch.device("meta"):
        model = kind.from_config(config, trust_remote_code=False)
    expected = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    unknown = sorted(key for key in every.keys() - expected.keys() - head - may_lack - stored.left.keys() if not is_leftover(key))
    if unknown:
        raise InputError(
            f"{name}: {len(unknown)} weights in the files have no place in this {config.model_type} of {layers} layers "
            f"({', '.join(unknown[:3])}{', …' if len(unknown) > 3 else ''}){hint_for(unknown)}"
        )
    for key, header in every.items():
        if key in may_lack or key not in expected:
            continue
        if header.shape != expected[key]:
            raise InputError(f"{name}: {key} is {_shape(header.shape)} in the file, and config.json asks for {_shape(expected[key])}")
        if header.dtype not in _FLOATS:
            raise InputError(
                f"{name}: {key} is stored as {header.dtype}; quantised weights are not supported: convert them to bfloat16 ({PAGE})"
            )
    return sum(map(prod, expected.values())) + sum(prod(stored.head[key].shape) for key in head)


def read_weight(files: Sequence[Path], key: str, device: str, rows: Sequence[int] | None = None) -> torch.Tensor:
    """One weight, or some rows of it, straight to a device."""
    for path in files:
        with safe_open(path, "pt", device=device) as file:
            if key in file.keys():  # noqa: SIM118 - it is no mapping
                if rows is None:
                    return file.get_tensor(key)
                part = file.get_slice(key)
                return torch.cat([part[row : row + 1] for row in rows])
    raise AssertionError(key)  # its header was read


def weight_files(folder: Path, name: str) -> list[Path]:
    """The safetensors files that transformers reads, each of them in the folder itself."""
    apart = [folder / _HEAD] if (folder / _HEAD).exists() else []
    if (folder / _WHOLE).exists():
        return [folder / _WHOLE, *apart]
    if (folder / _INDEX).exists():
        with refused(f"{name}: {_INDEX} is not readable"):
            files = sorted(set(json.loads((folder / _INDEX).read_text(encoding="utf-8"))["weight_map"].values()))
            outside = [file for file in files if Path(file).name != file or not file.endswith(".safetensors")]
        if outside:
            raise InputError(f"{name}: {_INDEX} names {outside[0]!r}; weights are safetensors files in the folder itself")
        lacking = next((file for file in files if not (folder / file).exists()), None)
        if lacking is not None:
            raise InputError(f"{name}: {_INDEX} names {lacking}, which is not there: the download is not complete")
        return [*(folder / file for file in files), *apart]
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
            here = {key: Header(part.get_dtype(), tuple(part.get_shape())) for key, part in parts.items()}
        if twice := sorted(here.keys() & found.keys()):
            raise InputError(f"{name}: {twice[0]} is in two files, {path.name} and another: only one of them should hold it")
        found |= here
    return found


def _refuse_pointer(path: Path, name: str) -> None:
    with refused(f"{name}: {path.name} is not readable"), path.open("rb") as file:
        if file.read(24) == b"version https://git-lfs.":
            raise InputError(f"{name}: {path.name} is a pointer of Git LFS, and not the file itself: git lfs pull fetches it")


def _shape(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "a number"
