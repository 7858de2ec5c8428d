"""Sets of neurons: which ones, as data that can be combined, drawn at random, and written down."""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tl_reward.arguments import check_argument, is_whole
from tl_reward.errors import InputError, first_line, shown

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class NeuronSet:
    """A set of MLP neurons, as (layer, neuron) pairs, or of attention heads, as (layer, head); sorted and unique.

    One that is made of scores or of a mask keeps their shape, and is refused where a model has another. What two sets make together has the
    shape of both. Sets are equal whatever their shapes.

    >>> a, b = NeuronSet([(0, 1), (1, 4)]), NeuronSet([(1, 4), (2, 0)])
    >>> (a & b).coords, (a - b).coords, len(a | b)
    (((1, 4),), ((0, 1),), 3)
    """

    coords: tuple[tuple[int, int], ...] = ()
    shape: tuple[int, int] | None = field(default=None, compare=False, repr=False)

    def __init__(self, coords: Iterable[tuple[int, int]] | Tensor | np.ndarray = (), *, shape: tuple[int, int] | None = None) -> None:
        """`shape`: how many layers the model has, and how many neurons in each; None where that is not known."""
        unique = sorted({*_whole(coords)})
        negative = [coord for coord in unique if min(coord) < 0]
        if negative:
            raise InputError(f"layers and neurons must be at least 0, got {negative[0]}")
        object.__setattr__(self, "coords", tuple(unique))
        object.__setattr__(self, "shape", shape)

    def __len__(self) -> int:
        return len(self.coords)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(self.coords)

    def __contains__(self, coord: object) -> bool:
        return coord in self.coords

    def __repr__(self) -> str:
        shown = ", ".join(map(str, self.coords[:6]))
        if len(self) <= 6:
            return f"NeuronSet([{shown}])"
        return f"NeuronSet of {len(self):,} in {len(self.by_layer())} layers: {shown}, …"

    def to_frame(self) -> "pandas.DataFrame":
        """A row a neuron: layer, neuron."""
        import pandas

        return pandas.DataFrame(self.to_json(), columns=["layer", "neuron"], dtype="int64")

    def _repr_html_(self) -> str:
        named = ", ".join(f"{layer}.{neuron}" for layer, neuron in self.coords[:12])
        more = ", …" if len(self) > 12 else ""
        return f"<b>{len(self):,} neurons in {len(self.by_layer())} layers</b><br>{named}{more}"

    def __or__(self, other: "NeuronSet") -> "NeuronSet":
        return NeuronSet({*self.coords, *other.coords}, shape=self._shape_with(other))

    def __and__(self, other: "NeuronSet") -> "NeuronSet":
        return NeuronSet(set(self.coords) & set(other.coords), shape=self._shape_with(other))

    def __sub__(self, other: "NeuronSet") -> "NeuronSet":
        return NeuronSet(set(self.coords) - set(other.coords), shape=self._shape_with(other))

    def _shape_with(self, other: "NeuronSet") -> tuple[int, int] | None:
        if None not in (self.shape, other.shape) and self.shape != other.shape:
            raise InputError(
                f"sets of two models' shapes: one of {_shape_in_words(self.shape)}, the other of {_shape_in_words(other.shape)}"
            )
        return self.shape or other.shape

    def check_fits(self, n_layers: int, d_mlp: int) -> None:
        """Raises InputError for a set of another shape, and for a layer or neuron that a model of this shape does not have."""
        if self.shape not in (None, (n_layers, d_mlp)):
            got = f"{_shape_in_words(self.shape)}, and this one has {_shape_in_words((n_layers, d_mlp))}"
            raise InputError(f"these neurons are of a model with {got}")
        for layer, neuron in self.coords:
            if layer >= n_layers:
                raise InputError(f"layer must be in [0, {n_layers}), got {layer}")
            if neuron >= d_mlp:
                raise InputError(f"neuron must be in [0, {d_mlp}), got {neuron}")

    def by_layer(self, device: torch.device | str = "cpu") -> Mapping[int, Int[Tensor, " neuron"]]:
        """The neurons of each layer that has any, on a device; they are moved there once."""
        device = torch.device(device)
        if device.type == "cpu" or not self.coords:
            return self._by_layer
        if device not in self._elsewhere:
            with torch.inference_mode(False):
                parts = [*self._by_layer.values()]
                moved = torch.cat(parts).to(device).split([len(part) for part in parts])
            self._elsewhere[device] = dict(zip(self._by_layer, moved, strict=True))
        return self._elsewhere[device]

    @cached_property
    def _elsewhere(self) -> dict[torch.device, dict[int, Int[Tensor, " neuron"]]]:
        return {}

    @cached_property
    @torch.inference_mode(False)  # made once, perhaps in inference mode, and then part of a backward pass
    def _by_layer(self) -> dict[int, Int[Tensor, " neuron"]]:
        layers: dict[int, list[int]] = {}
        for layer, neuron in self.coords:
            layers.setdefault(layer, []).append(neuron)
        return {layer: torch.tensor(neurons) for layer, neurons in layers.items()}

    def mask(self, n_layers: int, d_mlp: int) -> Bool[Tensor, "layer neuron"]:
        """True where a neuron is in the set. Raises InputError as `check_fits`."""
        self.check_fits(n_layers, d_mlp)
        result = torch.zeros(n_layers, d_mlp, dtype=torch.bool)
        for layer, neurons in self.by_layer().items():
            result[layer, neurons] = True
        return result

    @classmethod
    def from_mask(cls, mask: Bool[Tensor, "layer neuron"]) -> "NeuronSet":
        """The neurons at which a mask is true."""
        return cls(mask.nonzero(), shape=_shape_of(mask))

    @classmethod
    def top(cls, score: Float[Tensor, "layer neuron"], *, k: int | None = None, fraction: float | None = None) -> "NeuronSet":
        """The neurons with the highest scores: exactly `k`, or `round(fraction * count)`. Ties go to the lower layer, then neuron.

        With `k` of 0 the set is empty. Raises InputError for both or neither of `k` and `fraction`; a `k` that is no whole number or more
        than there are; a fraction outside (0, 1], or of less than one neuron; scores that are not [layer, neuron] or not all finite.

        >>> NeuronSet.top(torch.tensor([[1.0, 3.0], [3.0, 2.0]]), k=2).coords
        ((0, 1), (1, 0))
        """
        if hasattr(score, "ranking"):
            raise InputError('score must be a tensor [layer, neuron], got a Discovery: its ranking("mean", "mlp_gate") is one')
        check_argument("score", score, Tensor)
        check_argument("k", k, int | None)
        if score.ndim != 2:
            raise InputError(f"scores must be [layer, neuron], got a tensor of shape {list(score.shape)}")
        flat = score.flatten()
        if (k is None) == (fraction is None):
            raise InputError("give either k or fraction")
        if fraction is not None:
            k = count_of(fraction, len(flat))
        assert k is not None
        if not 0 <= k <= len(flat):
            raise InputError(f"k must be in [0, {len(flat)}], got {k}")
        if not flat.isfinite().all():
            raise InputError(f"{int((~flat.isfinite()).sum())} of {len(flat)} scores are not finite")
        order = torch.sort(flat, descending=True, stable=True).indices[:k]
        width = score.shape[1]
        return cls(torch.stack([order // width, order % width], dim=1), shape=_shape_of(score))

    def matched_random(self, d_mlp: int, *, seed: int) -> "NeuronSet":
        """As many neurons of each layer, drawn without replacement from those outside the set; of an empty set, none.

        Raises:
            InputError: a layer with more than half of its neurons in the set has too few others.
        """
        generator = torch.Generator().manual_seed(seed)
        coords: list[tuple[int, int]] = []
        for layer, neurons in self.by_layer().items():
            if int(neurons.max()) >= d_mlp:
                raise InputError(f"neuron must be in [0, {d_mlp}), got {int(neurons.max())}")
            others = torch.ones(d_mlp, dtype=torch.bool)
            others[neurons] = False
            pool = others.nonzero()[:, 0]
            if len(pool) < len(neurons):
                raise InputError(
                    f"layer {layer}: {len(neurons)} of {d_mlp} neurons are in the set; a disjoint random set needs at most half"
                )
            drawn = pool[torch.randperm(len(pool), generator=generator)[: len(neurons)]]
            coords += [(layer, neuron) for neuron in drawn.tolist()]
        return NeuronSet(coords, shape=self.shape)

    @classmethod
    def parse(cls, names: Iterable[str], *, models: Collection[str] = (), shape: tuple[int, int] | None = None) -> "NeuronSet":
        """Neurons by their names, layer.neuron, and those of files, FILE.json, which `load` reads: `models` and `shape` are its own.

        >>> NeuronSet.parse(["20.131", "0.3"]).coords
        ((0, 3), (20, 131))
        """
        if isinstance(names, str):
            raise InputError(f"names of neurons must be a list, got {names!r} by itself")
        given = [*map(str, names)]
        files = [name for name in given if name.endswith(".json")]
        parts = {name: name.split(".") for name in given if name not in files}
        wrong = [name for name, part in parts.items() if len(part) != 2 or not all(number.isdecimal() for number in part)]
        if wrong:
            raise InputError(f"a neuron is named layer.neuron, such as 20.131, and a file of neurons ends in .json; got {wrong[0]!r}")
        found = cls((int(layer), int(neuron)) for layer, neuron in parts.values())
        if shape is not None:
            found.check_fits(*shape)
        for file in files:
            found = found | cls.load(file, models=models, shape=shape)
        return found

    @classmethod
    def load(cls, path: str | Path, *, models: Collection[str] = (), shape: tuple[int, int] | None = None) -> "NeuronSet":
        """A set that a run's page has saved: a file of JSON, {"neurons": [[layer, neuron], …], "model": its name, "shape": [layers, neurons
        in each]}, of which the neurons must be there; or what `to_json` gives, written to a file.

        Args:
            models: what the model is called that the neurons are for; a file that names another one is refused. Nothing: any will do.
            shape: layers and neurons in each of that model.

        Raises:
            InputError: there is no such file, it is no such JSON, it holds no neuron, it is of another model, or it names a neuron that its
                shape or the given one does not have.
        """
        try:
            told = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"neurons of {path}: {first_line(error)}") from None
        try:
            told = {"neurons": told} if isinstance(told, list) else told
            own = _shape_from(told)
            found = cls(cls.from_json(told["neurons"]), shape=own)
            if not found:
                raise InputError("it holds no neuron")
            if models and told.get("model") and told["model"] not in models:
                one = next(iter(models))
                raise InputError(
                    f"they are of the model {shown(told['model'])}, and this one is {one}; --other-model takes them all the same"
                )
            for needed in filter(None, (own, shape)):
                found.check_fits(*needed)
        except InputError as error:
            raise InputError(f"neurons of {path}: {error}") from None
        return found

    def to_json(self) -> list[list[int]]:
        return [list(coord) for coord in self.coords]

    @classmethod
    def from_json(cls, value: Any) -> "NeuronSet":
        """From what `to_json` gives. Raises InputError for anything else."""
        if not isinstance(value, (list, tuple)):
            raise InputError(f"neurons must be a list of [layer, neuron], got {type(value).__name__}")
        return cls(tuple(each) if isinstance(each, list) else each for each in value)


def _shape_of(values: Tensor) -> tuple[int, int]:
    layers, units = values.shape
    return int(layers), int(units)


def _shape_from(told: Any) -> tuple[int, int] | None:
    """The shape that a file of neurons tells; None where it tells none. Raises InputError where it is no such file."""
    if not isinstance(told, dict) or "neurons" not in told:
        raise InputError('it must hold {"neurons": [[layer, neuron], …], "shape": [layers, neurons in each]}')
    shape = told.get("shape")
    if shape is not None and not (isinstance(shape, list) and len(shape) == 2 and all(type(size) is int and size > 0 for size in shape)):
        raise InputError(f"shape must be [layers, neurons in each], got {shown(shape)}")
    return None if shape is None else (shape[0], shape[1])


def _shape_in_words(shape: tuple[int, int] | None) -> str:
    layers, units = shape or ("?", "?")
    return f"{layers} layers of {units}"


def check_fraction(fraction: float) -> None:
    """Raises InputError for what is no number in (0, 1]."""
    check_argument("fraction", fraction, float)


def count_of(fraction: float, units: int) -> int:
    """How many neurons a share of all of them is. Raises InputError for a share outside (0, 1], or of less than one neuron."""
    check_fraction(fraction)
    count = round(fraction * units)
    if count == 0:
        raise InputError(f"fraction {fraction} of {units} neurons is less than one neuron")
    return count


def _whole(coords: Iterable[tuple[int, int]] | Tensor | np.ndarray) -> Iterator[tuple[int, int]]:
    """Pairs of whole numbers as they are. Raises InputError for anything else: int(0.5) would be neuron 0."""
    if not isinstance(coords, Iterable) or isinstance(coords, (str, bytes)):
        raise InputError(f"neurons must be pairs (layer, neuron), got {shown(coords)}")
    for coord in coords.tolist() if isinstance(coords, (Tensor, np.ndarray)) else coords:  # as mask.nonzero() and np.argwhere give them
        if type(coord) in (list, tuple) and len(coord) == 2 and type(coord[0]) is int and type(coord[1]) is int:
            yield coord[0], coord[1]  # nearly all are, and what follows takes several times as long
            continue
        if not isinstance(coord, Sequence) or len(coord) != 2 or not all(type(i) is int or is_whole(i) for i in coord):
            raise InputError(f"neurons must be pairs (layer, neuron) of whole numbers, got {coord!r}")
        yield int(coord[0]), int(coord[1])


def tied_at_cut(score: Float[Tensor, "layer neuron"], k: int) -> int:
    """How many neurons outside the top k have the very score of the last one inside: the cut between them is arbitrary.

    >>> tied_at_cut(torch.tensor([[1.0, 3.0], [3.0, 3.0]]), 2)
    1
    """
    flat = score.flatten().sort(descending=True).values
    return int((flat[k:] == flat[k - 1]).sum()) if 0 < k < len(flat) else 0
