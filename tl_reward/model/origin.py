"""Where a model comes from: what tells it from every other model, also from one whose folder has the same name.

Hashes of weight files are remembered in this process; torch is imported only for models that no file holds.
"""

import hashlib
from collections.abc import Iterable
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
            files are its own and its base's. For a model made in memory it is that of its tensors, as they are when first asked for.
        revision: the commit of the hub, where it is known.
    """

    path: str | None
    architecture: str
    layers: int
    d_model: int
    d_mlp: int
    heads: int
    weights: str
    revision: str | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


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


def weights_of(made_from: MadeFrom, tensors: Iterable[tuple[str, "Tensor"]]) -> str:
    """The hash that `Origin.weights` is: of the files if they are still those that were loaded, else of the tensors."""
    if not made_from.files or any(_changed(stamp) for stamp in made_from.files):
        return hash_of_tensors(tensors)
    parts = [_digests.of(stamp) for stamp in made_from.files]
    if len(parts) == 1 and not made_from.also:
        return parts[0]
    return hashlib.sha256("\n".join([*parts, made_from.also]).encode()).hexdigest()


def _changed(stamp: Stamp) -> bool:
    try:
        return Stamp.of(Path(stamp.path)) != stamp
    except OSError:
        return True


def hash_of_tensors(tensors: Iterable[tuple[str, "Tensor"]]) -> str:
    """A sha256 over names, types, shapes and bytes, in the order of the names."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(tensors, key=lambda item: item[0]):
        value = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
