"""Every edit that a repair considers, by the way it is found, how many neurons it edits, and how strongly."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations, product

import torch
from jaxtyping import Float
from torch import Tensor

from tl_reward.interventions.gates import Gates
from tl_reward.neurons import count_of
from tl_reward.repairing.config import RepairConfig
from tl_reward.repairing.ways.choosing import Effects, at_a_cost, furthest, hurting_all, hurting_on_balance
from tl_reward.repairing.ways.matching import HIGHEST

UNIFORM = (0.8, 0.9, 1.1, 1.2)


@dataclass(frozen=True, eq=False)
class Candidate:
    """An edit by its gates.

    Attributes:
        way: how its neurons were chosen.
        about: of which objectives, and what the gates are: "to 0.5".
    """

    way: str
    about: str
    gates: Float[Tensor, "layer neuron"]

    @property
    def neurons(self) -> int:
        """How many are edited."""
        return int((self.gates != 1).sum())

    @property
    def name(self) -> str:
        return f"{self.way}, {self.about}, {self.neurons:,} neuron{'' if self.neurons == 1 else 's'}"

    @property
    def intervention(self) -> Gates:
        return Gates(self.gates)


def candidates_of(
    effects: Effects,
    config: RepairConfig,
    *,
    direct: Effects | None,
    towards: Mapping[str, Float[Tensor, "layer neuron"]],
    learnt: Float[Tensor, "layer neuron"] | None,
) -> list[Candidate]:
    """All of them, each once: where fewer neurons qualify than two fractions ask for, both are one edit.

    Args:
        direct: effects of what neurons themselves write; None where the reward is along no single direction.
        towards: by objective, gates towards what a model of that objective alone does.
    """
    shape = next(iter(effects.values())).effect.shape
    counts = [count_of(fraction, shape.numel()) for fraction in config.fractions]
    found = [*_of_all("hurting", effects, counts, config.strengths), *_of_costs(effects, counts, config.strengths, towards)]
    if direct is not None:
        found += _of_all("writing against", direct, counts, config.strengths)
    if learnt is not None:
        found += [each for count in counts for each in _learnt(furthest(learnt, count))]
    different: list[Candidate] = []
    for each in found:
        if each.neurons and not any(torch.equal(each.gates, other.gates) for other in different):
            different.append(each)
    return different


def _of_all(does: str, effects: Effects, counts: Sequence[int], strengths: Sequence[float]) -> Iterator[Candidate]:
    for count, strength in product(counts, strengths):
        yield Candidate(f"{does} all", f"to {strength:g}", hurting_all(effects, count, strength))
        yield Candidate(f"{does} on balance", f"to {strength:g}", hurting_on_balance(effects, count, strength))


def _of_costs(
    effects: Effects, counts: Sequence[int], strengths: Sequence[float], towards: Mapping[str, Float[Tensor, "layer neuron"]]
) -> Iterator[Candidate]:
    """Down; and, where there is a model of the objective that is hurt, towards what that does."""
    for serves, hurts in permutations(effects, 2):
        for count in counts:
            of = f"{serves} at {hurts}'s"
            if hurts in towards:
                yield Candidate("at a cost", f"{of}, towards {hurts}", at_a_cost(effects, serves, hurts, count, towards[hurts]))
            for strength in strengths:
                yield Candidate("at a cost", f"{of}, to {strength:g}", at_a_cost(effects, serves, hurts, count, strength))


def _learnt(gates: Float[Tensor, "layer neuron"]) -> list[Candidate]:
    """As they were learnt; and all the way, in the direction in which each was moving when the steps were over."""
    whole = torch.where(gates < 1, 0, torch.where(gates > 1, HIGHEST, 1))
    return [Candidate("learnt", "gates of their own", gates), Candidate("learnt", f"to 0 or {HIGHEST:g}", whole)]


def uniform(shape: Sequence[int]) -> list[Candidate]:
    """All neurons scaled alike: a control, which changes the size of what MLPs write and nothing else."""
    return [Candidate("uniform", f"to {factor:g}", torch.full(tuple(shape), factor)) for factor in UNIFORM]


def random_like(gates: Float[Tensor, "layer neuron"], *, draws: int, seed: int) -> list[Candidate]:
    """The same gates on other neurons of the same layers, drawn at random among those that are not edited (where they are fewer, among
    all)."""
    generator = torch.Generator().manual_seed(seed)
    result = []
    for draw in range(draws):
        drawn = torch.ones_like(gates)
        for layer, own in enumerate(gates):
            edited = (own != 1).nonzero()[:, 0]
            others = (own == 1).nonzero()[:, 0]
            pool = others if len(others) >= len(edited) else torch.arange(len(own))
            drawn[layer, pool[torch.randperm(len(pool), generator=generator)[: len(edited)]]] = own[edited]
        result.append(Candidate("random", f"draw {draw + 1}", drawn))
    return result
