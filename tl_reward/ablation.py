"""What breaks when neurons are zeroed: curves over the share ablated, against layer-matched random sets."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from tl_reward.errors import InputError
from tl_reward.interventions import ZeroAblation, random_like
from tl_reward.model import HookedRewardModel
from tl_reward.run import BATCH_SIZE, Pairs, encode_for, score
from tl_reward.scores import Scores
from tl_reward.sites import NeuronSet, check_fraction, tied_at_cut
from tl_reward.tokens import Overlong


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
    clean: Scores | None = None,
    batch_size: int = BATCH_SIZE,
    max_length: int | None = None,
    overlong: Overlong = "drop",
    progress: str | None = None,
) -> AblationCurve:
    """Zeroes the top share of neurons over the whole model, and scores pairs that did not pick them.

    Args:
        ranking: higher ranks first, such as `Discovery.ranking`.
        fractions: shares of all neurons, each in (0, 1].
        draws: layer-matched random sets at each share, disjoint from the ranked one.
        clean: the scores without an edit, where they are known already.

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
    encoded = encode_for(model, pairs, max_length=max_length, overlong=overlong)

    def ablated(neurons: NeuronSet, label: str) -> Scores:
        bar = f"{progress} {label}" if progress else None
        return score(model, encoded, interventions=[ZeroAblation(neurons)], batch_size=batch_size, progress=bar)

    if clean is None:
        clean = score(model, encoded, batch_size=batch_size, progress=f"{progress} clean" if progress else None)
    points = []
    for fraction in fractions:
        top = NeuronSet.top(ranking, fraction=fraction)
        # A layer with over half of its neurons in the set has no disjoint set of that size.
        fits = all(2 * len(layer) <= shape[1] for layer in top.by_layer().values())
        controls = random_like(top, shape[1], draws=draws, seed=seed) if fits else []
        points.append(
            AblationPoint(
                fraction=fraction,
                neurons=top,
                ties=tied_at_cut(ranking, len(top)),
                ranked=ablated(top, f"top {fraction:.0%}"),
                random=tuple(ablated(c, f"random {fraction:.0%} {i + 1}/{draws}") for i, c in enumerate(controls)),
            )
        )
    return AblationCurve(clean, tuple(points))
