"""Where a model comes from: what tells it from every other model, also from one whose folder has the same name.

Hashes of weight files are remembered in this process; torch is imported only for models that no file holds.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
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
_WORDS = 2**20  # of eight bytes, that are summed at a time


class Weights:
    """What the weights of one model are: those of its files, as long as nobody changes them in memory.

    A sum over the bits of each tensor tells whether somebody did: it is taken when the model is loaded, and again whenever it is asked what
    it is, at the speed of memory. A cast to another precision is no change (`through_a_cast`).
    """

    def __init__(self, made_from: MadeFrom, tensors: Tensors) -> None:
        self.made_from = made_from
        self._at_first = sums_of(tensors)
        self._hashed: tuple[Mapping[str, Any], str] | None = None  # the last sums, and the hash of the tensors

    def _edited(self, sums: Mapping[str, int]) -> bool:
        return bool(self.made_from.files) and any(sums.get(key) != value for key, value in self._at_first.items())

    @contextmanager
    def through_a_cast(self, tensors: Callable[[], Tensors]) -> Iterator[None]:
        """Within it, the model may be moved, or cast as a whole to another precision."""
        edited = self._edited(sums_of(tensors()))
        yield
        if not edited:
            self._at_first = sums_of(tensors())

    def now(self, tensors: Tensors) -> "WeightsNow":
        """Their hash, as `Origin.weights`: of the files if they and the tensors are still those that were loaded, else of the tensors."""
        tensors = list(tensors)
        sums, files, also = sums_of(tensors), self.made_from.files, self.made_from.also
        edited = self._edited(sums)
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
    """The bits of each tensor as a sum of whole numbers, each times its place, by its name and type: where a number changes, or two change
    places, so does it (but for chance, one in 2^63). It depends neither on the device nor on the number of threads. Tensors without memory
    have none.
    """
    import torch

    sums: dict[str, Tensor] = {}
    odd = torch.empty(0)  # made once for tensors of all sizes
    for name, tensor in tensors:
        plain = tensor.detach()
        if plain.is_meta or not plain.numel():
            continue
        plain = plain.permute(*sorted(range(plain.ndim), key=lambda axis: -plain.stride(axis)))  # as it lies in memory
        flat = plain.contiguous().reshape(-1)
        flat = flat.clone() if flat.data_ptr() % 8 else flat
        words = flat.numel() * flat.element_size() // 8 * 8 // flat.element_size()
        parts = flat[:words].view(torch.int64), flat[words:].view(torch.uint8).long()
        longest = min(_WORDS, len(parts[0]) + 8)
        if len(odd) < longest or odd.device != flat.device:
            odd = torch.arange(1, 2 * longest, 2, device=flat.device)  # odd, so that no bit is lost
        total = torch.zeros((), dtype=torch.int64, device=flat.device)
        for part in (piece for each in parts for piece in each.split(_WORDS) if len(piece)):
            total = total * 3 + (part * odd[: len(part)]).sum()
        sums[f"{name} {tensor.dtype}"] = total
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
