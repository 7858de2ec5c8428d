"""What neurons do to rewards, exactly: each ablated by itself, or in sets."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, Unpack, cast

import numpy as np
from jaxtyping import Float
from torch import Tensor

from tl_reward.data.reading import Reading
from tl_reward.errors import InputError, summary_of
from tl_reward.interventions.ablations import ablation
from tl_reward.interventions.protocol import Edit
from tl_reward.measures.agreement import Agreement, Precision, measure_agreement, sample_neurons
from tl_reward.measures.frames.columns import REWARD, SHARE, DataFrame, estimates, frame, joined
from tl_reward.measures.intervals import Estimate, bootstrap_mean
from tl_reward.measures.json_types import EffectJson
from tl_reward.measures.scores import Scores, right
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.neurons import NeuronSet
from tl_reward.running.batches.batching import Pairs, encode_for
from tl_reward.running.half_precision import own_precision
from tl_reward.running.options import RunOptions, checked
from tl_reward.running.scoring import sweep
from tl_reward.sites import UnitSite, unit_shape


class EffectOptions(RunOptions, total=False):
    """The options of `set_effects`."""

    kind: str
    site: UnitSite
    mean: Float[Tensor, "layer neuron ..."] | None
    bank: Float[Tensor, "sample layer neuron ..."] | None
    edit: Edit | None
    progress: str | None


@dataclass(frozen=True, eq=False)
class Effects:
    """What ablating each of some sets of neurons (or heads) does, pair by pair, in raw reward units.

    Attributes:
        sets: by name; a neuron by itself is called by its layer and number, as in "20.131".
        clean: the model without an edit.
        chosen, rejected: [set, pair]: clean reward minus ablated reward. Positive: ablating *lowers* the reward.
        precision: in which the model ran, with and without edits.
    """

    sets: Mapping[str, NeuronSet]
    kind: str
    site: UnitSite
    clean: Scores
    chosen: np.ndarray
    rejected: np.ndarray
    precision: Precision | None = None

    @property
    def margin(self) -> np.ndarray:
        """[set, pair]. Positive: ablating the set *lowers* the margin of chosen over rejected."""
        return self.chosen - self.rejected

    @property
    def reading(self) -> Reading | None:
        """How many pairs were given, and how many left out, by reason."""
        return self.clean.reading

    def mean_margin(self) -> list[Estimate]:
        """The mean effect on the margin, set by set, with its bootstrap interval over prompts."""
        return [bootstrap_mean(row, self.clean.prompts) for row in self.margin]

    def mean_reward(self, side: Literal["chosen", "rejected"]) -> list[Estimate]:
        """The mean effect on the reward of the chosen, or of the rejected responses."""
        return [bootstrap_mean(row, self.clean.prompts) for row in (self.chosen if side == "chosen" else self.rejected)]

    def accuracy(self) -> list[Estimate]:
        """The accuracy lost, set by set. Positive: ablating *lowers* it."""
        clean = right(self.clean.margin)
        return [bootstrap_mean(clean - right(self.clean.margin - row), self.clean.prompts) for row in self.margin]

    def by_objective(self) -> dict[str, "Effects"]:
        """The effects on the pairs of each objective that has a name."""
        of = np.array(self.clean.objectives)
        return {
            name: replace(self, clean=part, chosen=self.chosen[:, of == name], rejected=self.rejected[:, of == name])
            for name, part in self.clean.by_objective().items()
        }

    __repr__ = summary_of

    def to_frame(self) -> DataFrame:
        """A row a set and objective ("" for all pairs): the mean effects of ablating it, with 95 % intervals. Layer and neuron are -1 for a
        set of several."""
        parts = {"": self} | (self.by_objective() if len(set(self.clean.objectives)) > 1 else {})
        alone = [neurons.coords[0] if len(neurons) == 1 else (-1, -1) for neurons in self.sets.values()]
        named = {
            "set": [*self.sets],
            "layer": [layer for layer, _ in alone],
            "neuron": [neuron for _, neuron in alone],
            "neurons (count)": [len(neurons) for neurons in self.sets.values()],
            "site": self.site,
            "kind": self.kind,
        }
        return joined([frame(named | {"objective": objective} | part._columns()) for objective, part in parts.items()])

    def _columns(self) -> dict[str, list[float]]:
        return {
            **estimates("effect on margin", REWARD, self.mean_margin()),
            **estimates("effect on chosen", REWARD, self.mean_reward("chosen")),
            **estimates("effect on rejected", REWARD, self.mean_reward("rejected")),
            **estimates("effect on accuracy", SHARE, self.accuracy()),
        }

    def to_json(self) -> list[EffectJson]:
        """One entry a set, the largest effect on the margin first."""
        columns = zip(self.sets, self.mean_margin(), self.mean_reward("chosen"), self.mean_reward("rejected"), self.accuracy(), strict=True)
        objectives = self.by_objective() if len(set(self.clean.objectives)) > 1 else {}
        parts = {name: part.mean_margin() for name, part in objectives.items()}
        entries: list[EffectJson] = [
            {
                "name": name,
                "neurons": self.sets[name].to_json(),
                "margin": margin.to_json(),
                "chosen": chosen.to_json(),
                "rejected": rejected.to_json(),
                "accuracy": accuracy.to_json(),
                "by_objective": {objective: values[i].to_json() for objective, values in parts.items()},
            }
            for i, (name, margin, chosen, rejected, accuracy) in enumerate(columns)
        ]
        return sorted(entries, key=lambda entry: -abs(entry["margin"]["value"]))


@checked
def set_effects(
    model: HookedRewardModel,
    pairs: Pairs,
    sets: Mapping[str, NeuronSet],
    *,
    kind: str = "zero",
    site: UnitSite = "mlp_post",
    mean: Float[Tensor, "layer neuron ..."] | None = None,
    bank: Float[Tensor, "sample layer neuron ..."] | None = None,
    edit: Edit | None = None,
    progress: str | None = None,
    **options: Unpack[RunOptions],
) -> Effects:
    """Ablates each set by itself, and scores every pair. A set is run from its first layer on.

    Args:
        kind: "zero"; "mean", which needs `mean`, the activations' means at this site; "resample", which needs `bank`, activations to draw
            from (`activations.sample_activations`); "halve". With `edit`, whatever that should be called.
        edit: what is done to each set instead, such as a patch: from a `NeuronSet` to an intervention.
        site: "mlp_post" or "mlp_gate" for neurons, "attn_z" for heads.
        options: how the model is run (`running.options.RunOptions`).

    Raises:
        InputError: an unknown kind; a kind without what it needs; no set, or an empty one; a neuron that the model does not have.
    """
    if not sets or not all(sets.values()):
        raise InputError("neurons must not be empty")
    for neurons in sets.values():
        neurons.check_fits(*unit_shape(model.cfg, site))
    encoded = encode_for(model, pairs, **options)
    edit = edit or partial(ablation, kind=kind, site=site, mean=mean, bank=bank)
    conditions = [[edit(neurons)] for neurons in sets.values()]
    clean, *ablated = sweep(model, encoded, [(), *conditions], progress=progress, **options)
    return Effects(
        sets=dict(sets),
        kind=kind,
        site=site,
        clean=clean,
        chosen=np.stack([clean.chosen - scores.chosen for scores in ablated]),
        rejected=np.stack([clean.rejected - scores.rejected for scores in ablated]),
        precision=own_precision(model),
    )


def singles(neurons: NeuronSet) -> dict[str, NeuronSet]:
    """Each neuron as a set of its own.

    >>> singles(NeuronSet([(0, 3), (20, 131)])).keys()
    dict_keys(['0.3', '20.131'])
    """
    return {f"{layer}.{neuron}": NeuronSet([(layer, neuron)]) for layer, neuron in neurons}


@checked
def neuron_effects(model: HookedRewardModel, pairs: Pairs, neurons: NeuronSet, **options: Unpack[EffectOptions]) -> Effects:
    """Ablates each neuron of a set by itself, one run from the neuron's layer on for each. Args and errors as in `set_effects`."""
    return set_effects(model, pairs, singles(neurons), **options)


@dataclass(frozen=True, eq=False)
class Comparison:
    """Effects on the margin as methods estimate them, beside exact ones: of the neurons with the largest estimates, and of others drawn
    at random.

    Attributes:
        effects: exact, one neuron ablated at a time.
        estimated: by method, [neuron] in the order of `effects.sets`.
        drawn: [neuron], true for those drawn at random from all neurons.
        agreement: by method, over all of them; `agreement_drawn` over those drawn at random alone, which is what holds for a neuron at
            large.
    """

    effects: Effects
    estimated: Mapping[str, np.ndarray]
    drawn: np.ndarray
    agreement: Mapping[str, Agreement]
    agreement_drawn: Mapping[str, Agreement]

    @property
    def reading(self) -> Reading | None:
        """How many pairs were given, and how many left out, by reason."""
        return self.effects.reading

    __repr__ = summary_of

    def to_frame(self) -> DataFrame:
        """A row a neuron and method: the estimated effect on the margin beside the exact one, with its interval."""
        coords = [neurons.coords[0] for neurons in self.effects.sets.values()]
        exact = {
            "layer": [layer for layer, _ in coords],
            "neuron": [neuron for _, neuron in coords],
            "drawn": self.drawn,
            **estimates("exact effect", REWARD, self.effects.mean_margin()),
        }
        return joined([frame(exact | {"method": name, f"estimated effect ({REWARD})": each}) for name, each in self.estimated.items()])

    def best(self) -> str:
        """The method with the highest precision at the larger k; Spearman's correlation decides between equals."""
        return max(self.agreement, key=lambda name: (self.agreement[name].largest_precision(), self.agreement[name].spearman.value))


def check_sample(top: int, random: int, *, units: int | None = None) -> None:
    """Says no before estimates are made: raises InputError where `compare_with_exact` would, for a model of as many neurons."""
    if random < 3:
        raise InputError(f"random must be at least 3, so that an agreement of neurons at large can be told, got {random}")
    if units is not None and max(top, random) > units:
        raise InputError(f"top and random must be in [0, {units}], got {top} and {random}")


@checked
def compare_with_exact(
    model: HookedRewardModel,
    pairs: Pairs,
    estimates: Mapping[str, Float[Tensor, "layer neuron"]],
    *,
    top: int = 16,
    random: int = 16,
    seed: int = 0,
    **options: Unpack[EffectOptions],
) -> Comparison:
    """Do attributions predict what ablation does? Ablates a sample of neurons, each alone, on the pairs that the estimates came from.

    Args:
        estimates: by method, effects on the margin, such as `Attribution.effect`; positive: ablating lowers the margin.
        top: how many neurons with the largest estimates, in size; of each method, so that none is favoured.
        random: how many drawn at random from all neurons; at least 3.
        options: as in `set_effects`: kind, edit, site, mean, bank, and how the model is run.

    Raises:
        InputError: a sample that is too small or too large; estimates of another shape than the model, or not finite; as `set_effects`.
    """
    site = options.get("site", "mlp_post")
    check_sample(top, random, units=math.prod(unit_shape(model.cfg, site)))
    for name, estimate in estimates.items():
        if tuple(estimate.shape) != unit_shape(model.cfg, site):
            raise InputError(f"estimate {name} must have the model's shape {list(unit_shape(model.cfg, site))}, got {list(estimate.shape)}")
        if not estimate.isfinite().all():
            raise InputError(f"estimate {name}: {int((~estimate.isfinite()).sum())} of {estimate.numel()} effects are not finite")
    values = {name: estimate.double().numpy() for name, estimate in estimates.items()}
    sample = sample_neurons(values, top=top, random=random, seed=seed)
    # With the limit of a backward pass, so that these are the pairs that estimates come from.
    run = cast(RunOptions, {name: value for name, value in options.items() if name in RunOptions.__annotations__})
    encoded = encode_for(model, pairs, gradients=True, **run)
    effects = neuron_effects(model, encoded, sample.top | sample.random, **options)
    coords = [place for neurons in effects.sets.values() for place in neurons]
    estimated = {name: np.array([value[place] for place in coords]) for name, value in values.items()}
    drawn = np.array([place in sample.random for place in coords])
    exact = effects.margin.mean(1)
    every = {name: measure_agreement(value, exact) for name, value in estimated.items()}
    at_large = {name: measure_agreement(value[drawn], exact[drawn]) for name, value in estimated.items()}
    return Comparison(effects, estimated, drawn, every, at_large)
