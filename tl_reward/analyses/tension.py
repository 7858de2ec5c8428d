"""Do helpfulness and harmlessness pull on the same neurons, and which way? Effects of each on the margins of two objectives."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Unpack

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from tl_reward.analyses.attribution import Attribution, check_estimate, estimate
from tl_reward.data.pairs import PreferencePair
from tl_reward.data.readers import GivenPairs, as_pairs
from tl_reward.data.reading import Reading
from tl_reward.errors import InputError, summary_of
from tl_reward.measures.contrast import FALSE_DISCOVERY_RATE
from tl_reward.measures.frames.columns import DataFrame, joined
from tl_reward.measures.json_types import ConflictJson, TensionJson
from tl_reward.measures.names import Method
from tl_reward.measures.overlap import regions
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.neurons import NeuronSet
from tl_reward.running.options import RunOptions, checked
from tl_reward.sites import UnitSite


class Conflict(NamedTuple):
    """Neurons whose effects on two objectives have opposite signs, beside a null of signs shuffled among the neurons of each layer.

    The null keeps how many neurons of each layer support each objective, and breaks which ones they are.

    Attributes:
        neurons: those that have an effect on both.
        share: of them, those in conflict; 0 where there are none.
        chance: the mean of the null, `low` and `high` its 95 % range.
        p_value: two-sided, from as many draws as `shuffles`.
    """

    neurons: int
    share: float
    chance: float
    low: float
    high: float
    p_value: float

    def to_json(self) -> ConflictJson:
        return {
            "neurons": self.neurons,
            "share": self.share,
            "chance": self.chance,
            "low": self.low,
            "high": self.high,
            "p_value": self.p_value,
        }


@dataclass(frozen=True, eq=False)
class Tension:
    """Each neuron's effect on the margins of two objectives, in one reward model.

    Attributes:
        effects: by objective, in the order of their names. Positive: the neuron raises that objective's margin.
        quadrants: the neurons whose effect on both objectives is clear (a false discovery rate of 5 % in each): those that support
            both, one at the other's cost, or neither.
        conflict: over all neurons; `conflict_clear` over those of `quadrants`.
    """

    site: UnitSite
    method: Method
    effects: Mapping[str, Attribution]
    quadrants: Mapping[str, NeuronSet]
    conflict: Conflict
    conflict_clear: Conflict

    @property
    def reading(self) -> Reading | None:
        """How many pairs were given, of both objectives together, and how many left out, by reason."""
        one, other = (found.reading for found in self.effects.values())
        return one + other if one and other else None

    __repr__ = summary_of

    def to_frame(self) -> DataFrame:
        """A row a neuron (or head) and objective: its effect on that objective's margin, and its quadrant, "" where it is in none."""
        parts = []
        for objective, found in self.effects.items():
            quadrant = np.full(tuple(found.effect.shape), "", dtype=object)
            for name, neurons in self.quadrants.items():
                quadrant[neurons.mask(*quadrant.shape).numpy()] = name
            parts.append(found.to_frame().assign(objective=objective, site=self.site, quadrant=quadrant.ravel()))
        return joined(parts)

    def top(self, fraction: float) -> dict[str, NeuronSet]:
        """The neurons with the largest supporting effect on each objective, as those of one alone, of the other alone, and shared.

        A neuron whose effect on an objective is 0 or negative does not support it: where fewer do than `fraction` of all neurons, the set
        is these alone.
        """
        (first, one), (second, other) = (
            (name, NeuronSet.top(found.effect, fraction=fraction) & NeuronSet.from_mask(found.effect > 0))
            for name, found in self.effects.items()
        )
        return regions(one, other, names=(first, second))

    def to_json(self) -> TensionJson:
        return {
            "site": self.site,
            "method": self.method,
            "objectives": list(self.effects),
            "pairs": {name: len(found.pairs) for name, found in self.effects.items()},
            "prompts": {name: found.prompts for name, found in self.effects.items()},
            "quadrants": {name: neurons.to_json() for name, neurons in self.quadrants.items()},
            "conflict": self.conflict.to_json(),
            "conflict_clear": self.conflict_clear.to_json(),
        }


@checked
def tension(
    model: HookedRewardModel,
    pairs: GivenPairs,
    *,
    site: UnitSite = "mlp_post",
    method: Method = "gradient",
    progress: str | None = None,
    **options: Unpack[RunOptions],
) -> Tension:
    """Estimates every neuron's effect on the margin of each objective, and asks how often the two disagree.

    Args:
        pairs: of two objectives; each pair names its own.
        site: "mlp_post" or "mlp_gate" for neurons, "attn_z" for heads.
        method: one of `names.METHODS` but "direct", which has no standard error.
        options: how the model is run (`running.options.RunOptions`).

    Raises:
        InputError: the pairs name less or more than two objectives; an unsuitable method.
    """
    by_objective = of_two_objectives(as_pairs(pairs))
    check_with_error(method, site)
    effects = {
        name: estimate(model, part, method, site=site, progress=f"{progress}: {name}" if progress else None, **options)
        for name, part in sorted(by_objective.items())
    }
    (first, one), (second, other) = effects.items()
    clear = (one.q_value() <= FALSE_DISCOVERY_RATE) & (other.q_value() <= FALSE_DISCOVERY_RATE)
    return Tension(
        site=site,
        method=method,
        effects=effects,
        quadrants={name: NeuronSet.from_mask(mask & clear) for name, mask in quadrants(one.effect, other.effect, (first, second)).items()},
        conflict=conflict(one.effect, other.effect),
        conflict_clear=conflict(one.effect * clear, other.effect * clear),
    )


def of_two_objectives(pairs: Sequence[PreferencePair]) -> dict[str, list[PreferencePair]]:
    """Pairs by objective. Raises InputError where these are less or more than two, or a pair names none."""
    found: dict[str, list[PreferencePair]] = {}
    for pair in pairs:
        found.setdefault(pair.objective or "none", []).append(pair)
    if len(found) != 2 or "none" in found:
        got = ", ".join(f"{len(part)} pairs of {name}" for name, part in sorted(found.items())) or "no pairs"
        helps = "a limit keeps the first rows of a file, which may be of one objective: give a larger one, or none"
        raise InputError(f"tension needs pairs of exactly two objectives, each naming its own, got {got} ({helps})")
    return found


def check_with_error(method: str, site: str) -> None:
    """Raises InputError where a method gives no standard error, or is not for what is at this site."""
    check_estimate(method, site)
    if method == "direct":
        raise InputError("method direct has no standard error; choose gradient, integrated, mean or pair")


def quadrants(
    one: Float[Tensor, "layer neuron"], other: Float[Tensor, "layer neuron"], names: tuple[str, str]
) -> dict[str, Bool[Tensor, "layer neuron"]]:
    """Which neurons support both objectives, one at the other's cost, or neither. A neuron without an effect on one is in none of them.

    >>> import torch
    >>> found = quadrants(torch.tensor([[1.0, 1.0, 0.0]]), torch.tensor([[2.0, -2.0, 1.0]]), ("a", "b"))
    >>> [name for name, mask in found.items() if mask.any()], found["a at b's cost"].tolist()
    (['both', "a at b's cost"], [[False, True, False]])
    """
    return {
        "both": (one > 0) & (other > 0),
        f"{names[0]} at {names[1]}'s cost": (one > 0) & (other < 0),
        f"{names[1]} at {names[0]}'s cost": (one < 0) & (other > 0),
        "neither": (one < 0) & (other < 0),
    }


def conflict(
    one: Float[Tensor, "layer neuron"], other: Float[Tensor, "layer neuron"], *, shuffles: int = 10_000, seed: int = 0
) -> Conflict:
    """How many neurons support one objective at the other's cost, and how many would by chance.

    Of n neurons in a layer, a with a positive effect on one objective and b on the other, the number that a shuffle makes positive on
    both is hypergeometric: it is drawn as such, which is the same as shuffling.
    """
    counted = ((one != 0) & (other != 0)).numpy()
    a, b = (one > 0).numpy() & counted, (other > 0).numpy() & counted
    total = int(counted.sum())
    if total == 0:
        return Conflict(0, 0.0, 0.0, 0.0, 0.0, 1.0)
    observed = int((a != b).sum())
    in_layer, positive, also = counted.sum(1), a.sum(1), b.sum(1)
    both = np.random.default_rng(seed).hypergeometric(positive, in_layer - positive, also, size=(shuffles, len(in_layer)))
    null = (positive + also).sum() - 2 * both.sum(1)
    tail = min((null <= observed).sum(), (null >= observed).sum())
    low, high = np.quantile(null, [0.025, 0.975])
    p_value = min(1.0, 2 * (int(tail) + 1) / (shuffles + 1))
    return Conflict(total, observed / total, float(null.mean()) / total, float(low) / total, float(high) / total, p_value)
