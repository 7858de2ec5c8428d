"""Where a model comes from: what tells it from every other model, also from one whose folder has the same name.

Hashes of weight files are remembered in this process; torch is imported only for models that no file holds.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Origin:
    """What a model is. Two models are the same one if `weights` and the sizes are; `path` is where it was, on the machine that loaded it.

    Attributes:
        path: the absolute folder, the hub id, or the name of an embedded model; None for a model that was made in memory.
        architecture: the config's `model_type`.
        layers, d_model, d_mlp, heads: sizes.
        weights: a sha256 in hexadecimal digits. For a model from files it is that of the files, so that device, precision and number of
            threads do not matter: of the file, where there is one (as `sha256sum` gives it), else of the hashes of all. An adapter's
            files are its own and its base's. For a model that was made or edited in memory it is that of its tensors, as they are.
        revision: the commit of the hub, where it is known.
        edited: the weights are no longer those that were loaded: somebody changed them in memory.
    """

    path: str | None
    architecture: str
    layers: int
    d_model: int
    d_mlp: int
    heads: int
    weights: str
    revision: str | None = None
    edited: bool = False

    def to_json(self) -> dict[str, Any]:
        """With `edited` only where it is so."""
        return {key: value for key, value in asdict(self).items() if key != "edited" or value}


class Stamp(NamedTuple):
    """A file as it was at some time."""

    path: str
    size: int
    modified: int  # nanoseconds

    @classmethod
    def of(cls, path: Path) -> "Stamp":
        stat = path.stat()
        return cls(str(path), stat.st_size, stat.st_mtime_ns)


@dataclass(frozen=True)
class MadeFrom:
    """The files that a model is made from, as they are when it is loaded.

    Attributes:
        also: what else the weights are made from: a seed, the scale of an adapter.
    """

    path: str | None = None
    revision: str | None = None
    files: tuple[Stamp, ...] = ()
    also: str = ""


@dataclass
class _Digests:
    known: dict[Stamp, str] = field(default_factory=dict)

    def of(self, stamp: Stamp) -> str:
        if stamp not in self.known:
            with Path(stamp.path).open("rb") as file:
                self.known[stamp] = hashlib.file_digest(file, "sha256").hexdigest()
        return self.known[stamp]


_digests = _Digests()


def digest_of(path: Path) -> str:
    """The sha256 of a file. It is read once in a process, as long as its size and time stay."""
    return _digests.of(Stamp.of(path))


Tensors = Iterable[tuple[str, "Tensor"]]


class Weights:
    """What the weights of one model are: those of its files, as long as nobody changes them in memory.

    A sum over the bits of each tensor tells whether somebody did: it is taken when the model is loaded, and again whenever it is asked what
    it is, at the speed of memory. A model that was cast to another precision since is taken for unchanged.
    """

    def __init__(self, made_from: MadeFrom, tensors: Tensors) -> None:
        self.made_from = made_from
        self._at_first = sums_of(tensors)
        self._hashed: tuple[Mapping[str, Any], str] | None = None  # the last sums, and the hash of the tensors

    def now(self, tensors: Tensors) -> "WeightsNow":
        """Their hash, as `Origin.weights`: of the files if they and the tensors are still those that were loaded, else of the tensors."""
        tensors = list(tensors)
        sums, files, also = sums_of(tensors), self.made_from.files, self.made_from.also
        edited = bool(files) and any(sums.get(key, value) != value for key, value in self._at_first.items())
        if not files or edited or any(_changed(stamp) for stamp in files):
            if self._hashed is None or self._hashed[0] != sums:
                self._hashed = sums, hash_of_tensors(tensors)
            return WeightsNow(self._hashed[1], edited)
        parts = [_digests.of(stamp) for stamp in files]
        whole = parts[0] if len(parts) == 1 and not also else hashlib.sha256("\n".join([*parts, also]).encode()).hexdigest()
        return WeightsNow(whole, edited)


class WeightsNow(NamedTuple):
    """`edited`: they are no longer those that were loaded from files."""

    hash: str
    edited: bool


def sums_of(tensors: Tensors) -> dict[str, int]:
    """The bits of each tensor as a sum of whole numbers, by its name and type: where one number changes, so does it. It depends neither on
    the device nor on the number of threads. Tensors without memory have none.
    """
    import torch

    sums: dict[str, Tensor] = {}
    for name, tensor in tensors:
        plain = tensor.detach()
        if plain.is_meta or not plain.numel():
            continue
        plain = plain.permute(*sorted(range(plain.ndim), key=lambda axis: -plain.stride(axis)))  # as it lies in memory
        flat = plain.contiguous().reshape(-1)
        words = flat.numel() * flat.element_size() // 8 * 8 // flat.element_size()
        whole = flat[:words].view(torch.int64).sum() if words and flat.data_ptr() % 8 == 0 else flat.view(torch.uint8).long().sum()
        rest = flat[words:].view(torch.uint8).long()
        sums[f"{name} {tensor.dtype}"] = whole + (rest * torch.arange(1, len(rest) + 1, device=rest.device)).sum()
    return dict(zip(sums, torch.stack(list(sums.values())).tolist(), strict=True)) if sums else {}


def _changed(stamp: Stamp) -> bool:
    try:
        return Stamp.of(Path(stamp.path)) != stamp
    except OSError:
        return True


def hash_of_tensors(tensors: Tensors) -> str:
    """A sha256 over names, types, shapes and bytes, in the order of the names."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(tensors, key=lambda item: item[0]):
        value = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
