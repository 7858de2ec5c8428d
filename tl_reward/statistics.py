"""Per-neuron statistics, accumulated batch by batch in one pass over the pairs.

Definitions follow arXiv 2606.13209: over all real tokens, the chosen and the rejected transcripts apart, then averaged. Its "magnitude"
is `mean` here (a signed mean), its "change" is `change`, its "probability" is `probability`.
"""

from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from tl_reward.errors import InputError

StatisticName = Literal["mean", "abs_mean", "rms", "probability", "change"]
STATISTICS: tuple[StatisticName, ...] = get_args(StatisticName)
SIDES = ("chosen", "rejected")
CHUNK = 256  # tokens at a time, so that what is computed from them stays in the cache (docs/performance.md)


def check_statistic(name: str) -> None:
    if name not in STATISTICS:
        raise InputError(f"score must be one of {', '.join(STATISTICS)}, got {name!r}")


@dataclass(eq=False)
class NeuronStatistics:
    """Running sums for one site over `n_layers` layers. Call `update` for each layer of each batch, then read `value`.

    Sums are kept in float64: bfloat16 and float32 sums drift over millions of tokens.
    """

    n_layers: int
    d_mlp: int
    tokens: Float[Tensor, " side"] = field(init=False)
    _sums: dict[str, Float[Tensor, "layer side neuron"]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.tokens = torch.zeros(2, dtype=torch.float64)

    def count(self, weight: Float[Tensor, "side token"]) -> None:
        """Notes how many tokens a batch holds; once a batch."""
        self.tokens += weight.double().sum(1).cpu()

    def update(
        self,
        layer: int,
        activation: Float[Tensor, "token neuron"],
        weight: Float[Tensor, "side token"],
        base: Float[Tensor, "token neuron"] | None = None,
    ) -> None:
        """Adds a batch's activations in one layer.

        Args:
            weight: how many chosen and how many rejected transcripts a token stands for (0 or 1, or more where pairs share one).
            base: the same tokens' activations in the base model, for `change`.
        """
        sums: dict[str, Tensor] = {}

        def add(name: str, sum_here: Float[Tensor, "side neuron"]) -> None:
            sums[name] = sums[name] + sum_here.double() if name in sums else sum_here.double()

        for start in range(0, len(activation), CHUNK):
            part = slice(start, start + CHUNK)
            x, w = activation[part].float(), weight[:, part]
            scratch = torch.empty_like(x)
            add("mean", w @ x)
            add("abs_mean", w @ torch.abs(x, out=scratch))
            add("rms", w @ torch.square(x, out=scratch))
            add("probability", w @ torch.gt(x, 0, out=scratch))
            if base is not None:
                add("change", w @ torch.sub(x, base[part].float(), out=scratch).square_())
        for name, value in sums.items():
            if name not in self._sums:
                self._sums[name] = torch.zeros(self.n_layers, 2, self.d_mlp, dtype=torch.float64)
            self._sums[name][layer] += value.cpu()

    @property
    def names(self) -> tuple[StatisticName, ...]:
        """The statistics that were computed: `change` only where a base model ran beside."""
        return tuple(name for name in STATISTICS if name in self._sums)

    def by_side(self, name: StatisticName) -> Float[Tensor, "side layer neuron"]:
        """A statistic over the chosen (0) and over the rejected transcripts (1), float32.

        mean, abs_mean: of the activation and its absolute value. rms: root mean square. probability: share of tokens with a positive
        activation, in [0, 1]. change: root mean square of the activation minus the base model's.

        Raises:
            InputError: an unknown statistic; `change` without a base model.
        """
        check_statistic(name)
        if name not in self._sums:
            raise InputError(f"score {name!r} needs a base model to compare with")
        value = self._sums[name].transpose(0, 1) / self.tokens[:, None, None]
        return (value.sqrt() if name in ("rms", "change") else value).float()

    def value(self, name: StatisticName) -> Float[Tensor, "layer neuron"]:
        """The mean of both sides."""
        return self.by_side(name).mean(0)
