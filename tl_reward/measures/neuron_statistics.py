"""Per-neuron statistics, accumulated batch by batch in one pass over the pairs.

Definitions follow arXiv 2606.13209: over all real tokens, the chosen and the rejected transcripts apart, then averaged. Its "magnitude"
is `mean` here (a signed mean), its "change" is `change`, or in part of its code `change_ms`, its "probability" is `probability`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from tl_reward import parallel
from tl_reward.devices import WideSums, wide
from tl_reward.errors import InputError
from tl_reward.measures.names import STATISTICS, StatisticName, check_statistic

SIDES = ("chosen", "rejected")
CHUNK = 256  # tokens at a time on a CPU, so that what is computed from them stays in the cache (docs/performance.md)
_ROOTS = {"rms": "mean_square", "change": "change_ms"}


def pieces(values: Float[Tensor, "token ..."]) -> list[slice]:
    """The tokens that are computed with at a time: pieces that fit a CPU's cache, and all of them elsewhere, where each call costs more."""
    size = CHUNK if values.device.type == "cpu" else max(len(values), 1)
    return [slice(start, start + size) for start in range(0, len(values), size)]


@dataclass(eq=False)
class NeuronStatistics:
    """Running sums for one site over `n_layers` layers. Call `update` for each layer of each batch, then read `by_side`.

    Sums are kept in float64: bfloat16 and float32 sums drift over millions of tokens. They stay on the device until they are read.

    Attributes:
        dtype: of the sums.
        device: where the activations are.
    """

    n_layers: int
    n_units: int
    objectives: Sequence[str] = ("",)
    dtype: torch.dtype = torch.float64
    device: torch.device | str = "cpu"
    _tokens: WideSums = field(init=False)
    _sums: dict[str, WideSums] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._tokens = WideSums(len(self.objectives), 2, device=self.device)

    @property
    def tokens(self) -> Float[Tensor, "objective side"]:
        """How many tokens were counted."""
        return self._tokens.total()

    def count(self, weight: Float[Tensor, "objective side token"]) -> None:
        """Notes how many tokens a batch holds; once a batch."""
        self._tokens.add(..., wide(weight).sum(2))

    def update(
        self,
        layer: int,
        activation: Float[Tensor, "token neuron *d_head"],
        weight: Float[Tensor, "objective side token"],
        base: Float[Tensor, "token neuron *d_head"] | None = None,
        averages: Float[Tensor, "row token"] | None = None,
    ) -> Float[Tensor, "row neuron"]:
        """Adds a batch's activations in one layer.

        Args:
            activation: of neurons, or of attention heads, of which each is a vector, whose norm then stands for it.
            weight: how many chosen and how many rejected transcripts of each objective a token stands for.
            base: the same tokens' activations in the base model, for `change`.
            averages: weights of tokens, for the result.

        Returns: for each row of `averages`, the sum over tokens by these weights, in the same pass.
        """
        sums: dict[str, Tensor] = {}

        def add(name: str, sum_here: Float[Tensor, "any neuron"]) -> None:
            sums[name] = sums[name] + wide(sum_here) if name in sums else wide(sum_here)

        weights = weight.flatten(0, 1)
        joint = weights if averages is None else torch.cat([weights, averages])
        heads = activation.ndim == 3
        for part in pieces(activation):
            values, w = activation[part].float(), weights[:, part]
            x = torch.linalg.vector_norm(values, dim=2) if heads else values
            add("norm" if heads else "mean", joint[:, part] @ x)
            scratch = torch.empty_like(values)
            if not heads:
                add("abs_mean", w @ torch.abs(x, out=scratch))
                add("mean_square", w @ torch.square(x, out=scratch))
                add("probability", w @ torch.gt(x, 0, out=scratch))
            if base is not None:
                square = torch.sub(values, base[part].float(), out=scratch).square_()
                add("change_ms", w @ (square.sum(2) if heads else square))
        for name, value in sums.items():
            self._sum(name).add(layer, value[: len(weights)].unflatten(0, weight.shape[:2]))
        return sums["norm" if heads else "mean"][len(weights) :].float()

    def merge(self) -> None:
        """Adds up what all processes have."""
        names = sorted({name for each in parallel.gathered([*self._sums]) for name in each})  # a process without a batch has none
        for sums in (self._tokens, *map(self._sum, names)):
            sums.merge()

    def _sum(self, name: str) -> WideSums:
        if name not in self._sums:
            shape = (self.n_layers, len(self.objectives), 2, self.n_units)
            self._sums[name] = WideSums(*shape, device=self.device, dtype=self.dtype)
        return self._sums[name]

    @property
    def names(self) -> tuple[StatisticName, ...]:
        """The statistics that were computed: `change` only where a base model ran beside, `norm` for heads, the others for neurons."""
        return tuple(name for name in STATISTICS if _ROOTS.get(name, name) in self._sums)

    def by_side(self, name: StatisticName) -> Float[Tensor, "side layer neuron"]:
        """A statistic over the chosen (0) and over the rejected transcripts (1) of all objectives, float32.

        mean, abs_mean: of the activation and its absolute value. rms: root mean square. probability: share of tokens with a positive
        activation, in [0, 1]. change: root mean square of the activation minus the base model's; change_ms: the mean square. norm: mean
        of the Euclidean norm of a head's output (`z`, before it is projected to the residual stream); `change` is of the vector.

        Raises:
            InputError: an unknown statistic; one that was not computed.
        """
        check_statistic(name)
        if name not in self.names:
            raise InputError(f"score {name!r} needs {'a base model to compare with' if 'change' in name else 'another site'}")
        value = self._sums[_ROOTS.get(name, name)].total().double().sum(1).transpose(0, 1) / self.tokens.sum(0)[:, None, None]
        return (value.sqrt() if name in _ROOTS else value).float()

    def value(self, name: StatisticName) -> Float[Tensor, "layer neuron"]:
        """The mean of both sides."""
        return self.by_side(name).mean(0)

    def firing(self) -> dict[str, Float[Tensor, "layer neuron"]]:
        """The probability over the pairs of each objective that has a name, the mean of both sides."""
        sums = self._sums["probability"].total()
        by_objective = (sums.double() / self.tokens[:, :, None]).mean(2).unbind(1)
        return {name: value.float() for name, value in zip(self.objectives, by_objective, strict=True) if name}
