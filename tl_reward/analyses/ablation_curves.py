"""What breaks when neurons are zeroed: curves over the share ablated, against layer-matched random sets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Unpack

from jaxtyping import Float
from torch import Tensor

from tl_reward.data.encoding import EncodedPairs
from tl_reward.data.reading import Reading
from tl_reward.errors import InputError, summary_of
from tl_reward.interventions.ablations import ZeroAblation, random_like
from tl_reward.interventions.protocol import Edit
from tl_reward.measures.agreement import Precision
from tl_reward.measures.frames.columns import REWARD, SHARE, DataFrame, estimates, frame
from tl_reward.measures.json_types import AblationCurveJson, AblationPointJson, SetAblationsJson
from tl_reward.measures.scores import Scores, right
from tl_reward.model.heads.chosen import output_name
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.neurons import NeuronSet, tied_at_cut
from tl_reward.running.batches.batching import Pairs, encode_for
from tl_reward.running.half_precision import own_precision
from tl_reward.running.options import RunOptions, checked
from tl_reward.running.scoring import Condition, sweep
from tl_reward.sites import UnitSite, unit_shape


@dataclass(frozen=True, eq=False)
class AblationPoint:
    """A set of neurons, ablated. `random` holds the scores of each draw; empty where no layer-matched disjoint set exists.

    `fraction` is of all neurons. `ties` counts the neurons outside a set that is the top of a ranking whose score is that of the last
    one inside.
    """

    fraction: float
    neurons: NeuronSet
    ties: int
    ranked: Scores
    random: tuple[Scores, ...]

    __repr__ = summary_of

    def scored(self) -> dict[str, Scores]:
        """By draw: "ranked", and "random 1" and so on."""
        return {"ranked": self.ranked} | {f"random {i}": draw for i, draw in enumerate(self.random, 1)}

    def to_json(self, clean: Scores) -> AblationPointJson:
        before, drawn = clean.by_objective(), [draw.by_objective() for draw in self.random]
        return {
            "fraction": self.fraction,
            "neurons": len(self.neurons),
            "ties_at_cut": self.ties,
            "ranked": self.ranked.to_json(),
            "relative_drop": self.ranked.relative_drop(clean).to_json(),
            "relative_drop_by_objective": {
                name: part.relative_drop(before[name]).to_json() for name, part in self.ranked.by_objective().items()
            },
            "random_accuracy": [_accuracy(draw) for draw in self.random],
            "random_margin": [float(draw.margin.mean()) for draw in self.random],
            "random_by_objective": {name: [_accuracy(draw[name]) for draw in drawn] for name in before},
        }


def _accuracy(scores: Scores) -> float:
    """Without an interval: that of random sets is their range."""
    return float(right(scores.margin).mean())


@dataclass(frozen=True, eq=False)
class AblationCurve:
    """`clean` is the model without an edit; `precision` is that of the edited ones."""

    clean: Scores
    points: tuple[AblationPoint, ...]
    precision: Precision | None = None

    __repr__ = summary_of

    def to_frame(self) -> DataFrame:
        """A row a fraction, draw and objective ("" for all pairs); fraction 0, draw "clean", is the model without an edit."""
        return _frame(self.clean, [("", point) for point in self.points]).drop(columns="set")

    @property
    def reading(self) -> Reading | None:
        """How many pairs were given, and how many left out, by reason."""
        return self.clean.reading

    def to_json(self) -> AblationCurveJson:
        return {"clean": self.clean.to_json(), "points": [point.to_json(self.clean) for point in self.points]}


@dataclass(frozen=True, eq=False)
class SetAblations:
    """Sets by name. `clean` is the model without an edit; `precision` is that of the edited ones."""

    clean: Scores
    sets: Mapping[str, AblationPoint]
    precision: Precision | None = None

    __repr__ = summary_of

    def to_frame(self) -> DataFrame:
        """A row a set, draw and objective ("" for all pairs); draw "clean" is the model without an edit."""
        return _frame(self.clean, [*self.sets.items()])

    @property
    def reading(self) -> Reading | None:
        """How many pairs were given, and how many left out, by reason."""
        return self.clean.reading

    def to_json(self) -> SetAblationsJson:
        return {"clean": self.clean.to_json(), "sets": {name: point.to_json(self.clean) for name, point in self.sets.items()}}


def _frame(clean: Scores, points: Sequence[tuple[str, AblationPoint]]) -> DataFrame:
    rows = [("", 0.0, 0, "clean", clean)]
    rows += [(name, point.fraction, len(point.neurons), draw, scores) for name, point in points for draw, scores in point.scored().items()]
    whole = {"": clean} | clean.by_objective()
    scored = [(*row, objective) for row in rows for objective in whole]
    name, fraction, neurons, draw, scores, objective = zip(*scored, strict=True)
    parts = [each.by_objective()[of] if of else each for each, of in zip(scores, objective, strict=True)]
    return frame(
        {
            "set": name,
            "fraction (share of all neurons)": fraction,
            "neurons (count)": neurons,
            "draw": draw,
            "objective": objective,
            **estimates("accuracy", SHARE, [part.accuracy() for part in parts]),
            **estimates("margin", REWARD, [part.mean_margin() for part in parts]),
            **estimates("relative drop", SHARE, [part.relative_drop(whole[of]) for part, of in zip(parts, objective, strict=True)]),
        }
    )


@checked
def ablation_curve(
    model: HookedRewardModel,
    pairs: Pairs,
    ranking: Float[Tensor, "layer neuron"],
    *,
    fractions: Sequence[float] = (0.02, 0.05, 0.1, 0.2),
    draws: int = 3,
    seed: int = 0,
    site: UnitSite = "mlp_post",
    edit: Edit | None = None,
    clean: Scores | None = None,
    progress: str | None = None,
    **options: Unpack[RunOptions],
) -> AblationCurve:
    """Zeroes the top share of neurons (or heads) over the whole model, and scores pairs that did not pick them: one sweep over all sets.

    Args:
        ranking: higher ranks first, such as `Discovery.ranking`.
        fractions: shares of all neurons, each in (0, 1].
        draws: layer-matched random sets at each share, disjoint from the ranked one.
        site: "attn_z" where the ranking is of heads; zeroing either reading of a neuron is the same.
        edit: what is done to each set instead, such as a patch: from a `NeuronSet` to an intervention.
        clean: the model's own scores of these pairs, where they are at hand. By default they are computed.
        options: how the model is run (`running.options.RunOptions`).

    Raises:
        InputError: a fraction outside (0, 1], a ranking of another shape than the model, or clean scores of other pairs, or of another
            output.
    """
    shape = unit_shape(model.cfg, site)
    if tuple(ranking.shape) != shape:
        raise InputError(f"ranking must have the model's shape {list(shape)}, got {list(ranking.shape)}")
    tops = {f"{fraction}": NeuronSet.top(ranking, fraction=fraction) for fraction in fractions}
    found = ablate_sets(model, pairs, tops, draws=draws, seed=seed, site=site, edit=edit, clean=clean, progress=progress, **options)
    points = zip(fractions, found.sets.values(), strict=True)
    return AblationCurve(
        found.clean,
        tuple(replace(point, fraction=fraction, ties=tied_at_cut(ranking, len(point.neurons))) for fraction, point in points),
        found.precision,
    )


@checked
def ablate_sets(
    model: HookedRewardModel,
    pairs: Pairs,
    sets: Mapping[str, NeuronSet],
    *,
    draws: int = 3,
    seed: int = 0,
    site: UnitSite = "mlp_post",
    edit: Edit | None = None,
    clean: Scores | None = None,
    progress: str | None = None,
    **options: Unpack[RunOptions],
) -> SetAblations:
    """Zeroes each set, and layer-matched random sets beside it: one sweep over all of them.

    Args and errors as in `ablation_curve`. A set without a neuron leaves the model as it is.
    """
    shape = unit_shape(model.cfg, site)
    for own in sets.values():
        own.check_fits(*shape)  # says which one the model does not have
    # A layer with over half of its neurons in the set has no disjoint set of that size.
    fits = {name: all(2 * len(layer) <= shape.units for layer in own.by_layer().values()) for name, own in sets.items()}
    controls = {name: random_like(own, shape.units, draws=draws, seed=seed) if fits[name] and own else [] for name, own in sets.items()}
    edit = edit or partial(ZeroAblation, site=site)
    conditions = [[edit(neurons)] for name, own in sets.items() for neurons in (own, *controls[name])]
    encoded = encode_for(model, pairs, **options)
    if clean is not None:
        clean = _of_these(clean, encoded, output_name(model))
    first: list[Condition] = [()] if clean is None else []
    scores = sweep(model, encoded, [*first, *conditions], progress=progress, **options)
    clean = scores.pop(0) if clean is None else clean
    left = iter(scores)
    return SetAblations(
        clean,
        {
            name: AblationPoint(len(own) / (shape.layers * shape.units), own, 0, next(left), tuple(next(left) for _ in controls[name]))
            for name, own in sets.items()
        },
        own_precision(model),
    )


def _of_these(clean: Scores, encoded: EncodedPairs, output: str) -> Scores:
    """Scores that are at hand, with what was read of these pairs. Raises InputError where they are of others, or of another output."""
    if clean.output != output:
        here, there = (f"the output {name}" if name else "a model without a choice of outputs" for name in (output, clean.output))
        raise InputError(f"clean must be the scores of {here}, got those of {there}")
    these = Scores.of(encoded.pairs, [0.0] * len(encoded.pairs), [0.0] * len(encoded.pairs))
    if any(getattr(clean, name) != getattr(these, name) for name in ("ids", "prompts", "objectives", "groups")):
        raise InputError(f"clean must be the scores of these {len(encoded.pairs)} pairs, in their order, got those of {len(clean)} others")
    return replace(clean, dropped=encoded.dropped, reading=encoded.reading)
