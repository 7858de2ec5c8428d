"""Which neurons fire for one objective and not for the others: LAPE (Tang et al. 2024), over any number of objectives."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tl_reward.errors import InputError, summary_of
from tl_reward.measures.frames.columns import DataFrame, frame, places
from tl_reward.neurons import NeuronSet

BAR = 0.95  # the study's, and LAPE's


@dataclass(frozen=True, eq=False)
class Selectivity:
    """How unevenly neurons fire over objectives.

    Attributes:
        probability: by objective, the share of tokens at which a neuron is positive, in [0, 1].
        entropy: of a neuron's probabilities, normalised to add up to 1, in nats; that of an even split where it never fires.
        bar: the 95th percentile of all probabilities. A neuron that reaches it for no objective is not eligible.
    """

    probability: Mapping[str, Float[Tensor, "layer neuron"]]
    entropy: Float[Tensor, "layer neuron"]
    eligible: Bool[Tensor, "layer neuron"]
    bar: float

    __repr__ = summary_of

    def to_frame(self) -> DataFrame:
        """A row a neuron: its entropy in nats, whether it is eligible, and by objective the share of tokens at which it is positive."""
        firing = {f"firing, {name} (share of tokens)": value for name, value in self.probability.items()}
        return frame(places(self.entropy.shape) | {"entropy (nats)": self.entropy, "eligible": self.eligible} | firing)

    def ranking(self) -> Float[Tensor, "layer neuron"]:
        """By how much the entropy falls short of an even split's, in nats; 0 where a neuron is not eligible."""
        return torch.where(self.eligible, math.log(len(self.probability)) - self.entropy, 0).clamp(min=0)

    def sets(self, share: float) -> dict[str, NeuronSet]:
        """The eligible neurons of lowest entropy, each with every objective for which it reaches the bar.

        Args:
            share: of all neurons, the share that is selected; fewer where fewer are eligible.
        """
        ranking = torch.where(self.eligible, self.ranking(), -1)
        selected = NeuronSet.top(ranking, fraction=share) & NeuronSet.from_mask(self.eligible)
        return {name: selected & NeuronSet.from_mask(value >= self.bar) for name, value in self.probability.items()}


def selectivity(probability: Mapping[str, Float[Tensor, "layer neuron"]]) -> Selectivity:
    """Raises InputError with less than two objectives: entropy over one is always 0.

    >>> found = selectivity({"a": torch.tensor([[0.9, 0.5]]), "b": torch.tensor([[0.1, 0.5]])})
    >>> [round(value, 3) for value in found.entropy[0].tolist()]
    [0.325, 0.693]
    """
    if len(probability) < 2:
        got = ", ".join(probability) or "none"
        raise InputError(f"entropy needs pairs of two or more objectives, got {got}; mark pairs with their objective")
    stacked = torch.stack([*probability.values()]).double()
    total = stacked.sum(0)
    shares = torch.where(total > 0, stacked / total.clamp(min=1e-300), 1 / len(probability))
    bar = float(torch.quantile(stacked.flatten()[:: max(1, stacked.numel() // 2**23)], BAR))
    return Selectivity(probability, -torch.xlogy(shares, shares).sum(0).float(), stacked.amax(0) >= bar, bar)
