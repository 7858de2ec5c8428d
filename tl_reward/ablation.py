"""What breaks when neurons are zeroed: curves over the share ablated, against layer-matched random sets."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Unpack

from jaxtyping import Float
from torch import Tensor

from tl_reward.budget import BatchOptions
from tl_reward.errors import InputError
from tl_reward.interventions import ZeroAblation, random_like
from tl_reward.model import HookedRewardModel
from tl_reward.run import Pairs, sweep
from tl_reward.scores import Scores
from tl_reward.sites import NeuronSet, check_fraction, tied_at_cut


@dataclass(frozen=True, eq=False)
class AblationPoint:
    """One share of the neurons, ablated. `random` holds a score a draw; empty where no layer-matched disjoint set exists."""

    fraction: float
    neurons: NeuronSet
    ties: int
    ranked: Scores
    random: tuple[Scores, ...]

    def to_json(self) -> dict[str, Any]:
        accuracies = [draw.accuracy().value for draw in self.random]
        margins = [draw.mean_margin().value for draw in self.random]
        return {
            "fraction": self.fraction,
            "neurons": len(self.neurons),
            "ties_at_cut": self.ties,
            "ranked": self.ranked.to_json(),
            "random_accuracy": accuracies,
            "random_margin": margins,
        }


@dataclass(frozen=True, eq=False)
class AblationCurve:
    """`clean` is the model without an edit."""

    clean: Scores
    points: tuple[AblationPoint, ...]

    def to_json(self) -> dict[str, Any]:
        return {"clean": self.clean.to_json(), "points": [point.to_json() for point in self.points]}


def ablation_curve(
    model: HookedRewardModel,
    pairs: Pairs,
    ranking: Float[Tensor, "layer neuron"],
    *,
    fractions: Sequence[float] = (0.02, 0.05, 0.1, 0.2),
    draws: int = 3,
    seed: int = 0,
    progress: str | None = None,
    **options: Unpack[BatchOptions],
) -> AblationCurve:
    """Zeroes the top share of neurons over the whole model, and scores pairs that did not pick them: one sweep over all sets.

    Args:
        ranking: higher ranks first, such as `Discovery.ranking`.
        fractions: shares of all neurons, each in (0, 1].
        draws: layer-matched random sets at each share, disjoint from the ranked one.
        options: how transcripts become batches (`budget.BatchOptions`).

    Raises:
        InputError: a fraction outside (0, 1], or a ranking of another shape than the model.
    """
    shape = (model.cfg.n_layers, int(model.cfg.d_mlp or 0))
    if tuple(ranking.shape) != shape:
        raise InputError(f"ranking must have the model's shape {list(shape)}, got {list(ranking.shape)}")
    for fraction in fractions:
        check_fraction(fraction)
    if draws < 0:
        raise InputError(f"draws must be at least 0, got {draws}")
    tops = [NeuronSet.top(ranking, fraction=fraction) for fraction in fractions]
    # A layer with over half of its neurons in the set has no disjoint set of that size.
    fits = [all(2 * len(layer) <= shape[1] for layer in top.by_layer().values()) for top in tops]
    controls = [random_like(top, shape[1], draws=draws, seed=seed) if fit else [] for top, fit in zip(tops, fits, strict=True)]
    sets = [neurons for top, random in zip(tops, controls, strict=True) for neurons in (top, *random)]
    clean, *scores = sweep(model, pairs, [(), *([ZeroAblation(neurons)] for neurons in sets)], progress=progress, **options)
    left = iter(scores)
    points = [
        AblationPoint(fraction, top, tied_at_cut(ranking, len(top)), next(left), tuple(next(left) for _ in random))
        for fraction, top, random in zip(fractions, tops, controls, strict=True)
    ]
    return AblationCurve(clean, tuple(points))
