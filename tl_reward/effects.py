"""What each neuron does to rewards, exactly: every neuron ablated by itself."""

from dataclasses import dataclass
from typing import Any, Literal, Unpack, get_args

import numpy as np
from jaxtyping import Float
from torch import Tensor

from tl_reward.agreement import Agreement, measure_agreement, sample_neurons
from tl_reward.budget import BatchOptions
from tl_reward.errors import InputError
from tl_reward.interventions import Intervention, MeanAblation, ResampleAblation, ScaleAblation, ZeroAblation
from tl_reward.model import HookedRewardModel
from tl_reward.run import Pairs, encode_for, sweep
from tl_reward.scores import Estimate, Scores, bootstrap_mean, right
from tl_reward.sites import NeuronSet, SiteKind

AblationKind = Literal["zero", "mean", "resample", "halve"]


@dataclass(frozen=True, eq=False)
class Effects:
    """The effect of ablating each of some neurons alone, pair by pair, in raw reward units.

    `chosen` and `rejected` are [neuron, pair]: clean reward minus ablated reward. Positive: ablating *lowers* the reward.
    """

    neurons: tuple[tuple[int, int], ...]
    kind: AblationKind
    site: SiteKind
    clean: Scores
    chosen: np.ndarray
    rejected: np.ndarray

    @property
    def margin(self) -> np.ndarray:
        """[neuron, pair]. Positive: ablating the neuron *lowers* the margin of chosen over rejected."""
        return self.chosen - self.rejected

    def mean_margin(self) -> list[Estimate]:
        """The mean effect on the margin, neuron by neuron, with its bootstrap interval over prompts."""
        return [bootstrap_mean(row, self.clean.prompts) for row in self.margin]

    def mean_reward(self, side: Literal["chosen", "rejected"]) -> list[Estimate]:
        """The mean effect on the reward of the chosen, or of the rejected responses."""
        return [bootstrap_mean(row, self.clean.prompts) for row in (self.chosen if side == "chosen" else self.rejected)]

    def accuracy(self) -> list[Estimate]:
        """The accuracy lost, neuron by neuron. Positive: ablating *lowers* it."""
        clean = right(self.clean.margin)
        return [bootstrap_mean(clean - right(self.clean.margin - row), self.clean.prompts) for row in self.margin]

    def to_json(self) -> list[dict[str, Any]]:
        """One entry a neuron, the largest effect on the margin first."""
        columns = zip(
            self.neurons, self.mean_margin(), self.mean_reward("chosen"), self.mean_reward("rejected"), self.accuracy(), strict=True
        )
        entries = [
            {
                "layer": layer,
                "neuron": neuron,
                "margin": margin._asdict(),
                "chosen": chosen._asdict(),
                "rejected": rejected._asdict(),
                "accuracy": accuracy._asdict(),
            }
            for (layer, neuron), margin, chosen, rejected, accuracy in columns
        ]
        return sorted(entries, key=lambda entry: -abs(entry["margin"]["value"]))


def neuron_effects(
    model: HookedRewardModel,
    pairs: Pairs,
    neurons: NeuronSet,
    *,
    kind: AblationKind = "zero",
    site: SiteKind = "mlp_post",
    mean: Float[Tensor, "layer neuron"] | None = None,
    bank: Float[Tensor, "sample layer neuron"] | None = None,
    progress: str | None = None,
    **options: Unpack[BatchOptions],
) -> Effects:
    """Ablates each neuron of a set by itself, and scores every pair. One run from the neuron's layer on for each neuron.

    Args:
        kind: "zero"; "mean", which needs `mean`, the activations' means at this site; "resample", which needs `bank`, activations to draw
            from (`streaming.sample_activations`); "halve".
        options: how transcripts become batches (`budget.BatchOptions`).

    Raises:
        InputError: an unknown kind; a kind without what it needs; no neuron; a neuron that the model does not have.
    """
    if len(neurons) == 0:
        raise InputError("neurons must not be empty")
    neurons.mask(model.cfg.n_layers, int(model.cfg.d_mlp or 0))
    encoded = encode_for(model, pairs, **options)
    conditions = [[ablation(NeuronSet([place]), kind, site=site, mean=mean, bank=bank)] for place in neurons]
    clean, *ablated = sweep(model, encoded, [(), *conditions], progress=progress, **options)
    return Effects(
        neurons=neurons.coords,
        kind=kind,
        site=site,
        clean=clean,
        chosen=np.stack([clean.chosen - scores.chosen for scores in ablated]),
        rejected=np.stack([clean.rejected - scores.rejected for scores in ablated]),
    )


@dataclass(frozen=True, eq=False)
class Comparison:
    """Estimated effects on the margin beside exact ones, for the neurons with the largest estimates and for others drawn at random.

    Attributes:
        effects: exact, one neuron ablated at a time.
        estimated: [neuron], in the order of `effects.neurons`.
        drawn: [neuron], true for those drawn at random.
        agreement: over all of them; `agreement_drawn` over those drawn at random alone, which is what holds for a neuron at large.
    """

    effects: Effects
    estimated: np.ndarray
    drawn: np.ndarray
    agreement: Agreement
    agreement_drawn: Agreement


def compare_with_exact(
    model: HookedRewardModel,
    pairs: Pairs,
    estimate: Float[Tensor, "layer neuron"],
    *,
    top: int = 16,
    random: int = 16,
    seed: int = 0,
    site: SiteKind = "mlp_post",
    progress: str | None = None,
    **options: Unpack[BatchOptions],
) -> Comparison:
    """Does an attribution predict what zeroing does? Zeroes a sample of neurons, each alone, on the pairs that the estimate came from.

    Args:
        estimate: effects on the margin, such as `Attribution.effect`; positive: zeroing lowers the margin.
        top: how many neurons with the largest estimates, in size.
        random: how many of the others, drawn at random; at least 3.
    """
    values = estimate.double().numpy()
    sample = sample_neurons(values, top=top, random=random, seed=seed)
    effects = neuron_effects(model, pairs, sample.top | sample.random, site=site, progress=progress, **options)
    estimated = np.array([values[place] for place in effects.neurons])
    drawn = np.array([place in sample.random for place in effects.neurons])
    exact = effects.margin.mean(1)
    return Comparison(effects, estimated, drawn, measure_agreement(estimated, exact), measure_agreement(estimated[drawn], exact[drawn]))


def ablation(
    neurons: NeuronSet,
    kind: AblationKind,
    *,
    site: SiteKind = "mlp_post",
    mean: Float[Tensor, "layer neuron"] | None = None,
    bank: Float[Tensor, "sample layer neuron"] | None = None,
) -> Intervention:
    """The intervention of a kind, as `neuron_effects` takes it."""
    if kind not in get_args(AblationKind):
        raise InputError(f"kind of ablation must be one of {', '.join(get_args(AblationKind))}, got {kind!r}")
    if kind == "mean":
        if mean is None:
            raise InputError("mean ablation needs the neurons' means (Discovery.ranking('mean', site))")
        return MeanAblation(neurons, mean, site)
    if kind == "resample":
        if bank is None:
            raise InputError("resample ablation needs activations to draw from (streaming.sample_activations)")
        return ResampleAblation(neurons, bank, site=site)
    return ZeroAblation(neurons, site) if kind == "zero" else ScaleAblation(neurons, 0.5, site)
