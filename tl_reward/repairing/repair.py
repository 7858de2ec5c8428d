"""From a reward model and pairs of several objectives to an edit of few neurons that serves all of them better, and the evidence for it."""

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple, Unpack

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tl_reward.analyses.attribution import attribute
from tl_reward.data.encoding import EncodedPairs
from tl_reward.data.pairs import PreferencePair, data_hash
from tl_reward.data.readers import GivenPairs
from tl_reward.errors import InputError
from tl_reward.interventions.folding import check_foldable
from tl_reward.interventions.gates import Gates
from tl_reward.measures.json_types import CompareKind, SplitSizeJson
from tl_reward.measures.scores import loss_weights, prompt_name
from tl_reward.model.heads.chosen import check_output, output_name
from tl_reward.model.layer_by_layer import check_comparable
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.repairing.config import RepairConfig
from tl_reward.repairing.evidence.battery import Shift, answers_of, battery
from tl_reward.repairing.evidence.compared import Compared, compared
from tl_reward.repairing.evidence.paired import spread_of
from tl_reward.repairing.result import Repair
from tl_reward.repairing.splits import ByObjective, Objectives, Splits, check_enough, split_of
from tl_reward.repairing.tuning import Tried, best_of, tried
from tl_reward.repairing.ways.candidates import Candidate, candidates_of, random_like, uniform
from tl_reward.repairing.ways.direct import direct_effects
from tl_reward.repairing.ways.learning import learnt_gates
from tl_reward.repairing.ways.matching import gates_towards
from tl_reward.running.activations import has_direction
from tl_reward.running.batches.batching import encode_for
from tl_reward.running.half_precision import half_where_it_agrees, in_half
from tl_reward.running.options import RunOptions, checked
from tl_reward.running.scoring import score, sweep
from tl_reward.sites import unit_shape

SCREENED = 48  # pairs of each objective on which all candidates are tried
FINALISTS = 8  # candidates that are tried on all tune pairs
CHECKED_EDITS = 3  # edits under which half precision has to agree

# The label of a progress bar, from what a pass is for; None where none is shown.
Say = Callable[[str], str | None]


class _Edit(NamedTuple):
    kind: CompareKind
    name: str
    gates: Float[Tensor, "layer neuron"]


@checked
def repair(
    model: HookedRewardModel,
    find: ByObjective,
    tune: ByObjective,
    test: ByObjective,
    *,
    protect: Mapping[str, GivenPairs] | None = None,
    singles: Mapping[str, HookedRewardModel] | None = None,
    beside: Mapping[str, HookedRewardModel] | None = None,
    config: RepairConfig = RepairConfig(),
    progress: str | None = None,
    **options: Unpack[RunOptions],
) -> Repair:
    """Finds neurons on one set of prompts, chooses the edit on a second, and tests it on a third, which is read once.

    No weight is trained. `Repair.applied(model)` has the edit in its weights.

    Args:
        find: like `tune` and `test`, pairs by objective, `{"helpful": …, "harmless": …}`, or pairs that name their objectives. No prompt
            may be in two of the three.
        protect: pairs by a name of their own that should not get worse. They may be those of `test`, and must share no prompt with
            `find` and `tune`.
        singles: by objective, reward models of it alone. Neurons that serve another one at its cost are then also scaled towards what they
            do in its model, and it is scored beside the repair.
        beside: other models to score beside the repair, such as one that was trained on the same pairs.
        config: which edits are tried, and how one is chosen.
        options: how the model is run (`running.options.RunOptions`). With interventions, the repair is of the edited model, and only a run
            with the same interventions has what is reported: no checkpoint does.

    Raises:
        InputError: as `split_of`; a model whose edit could not be folded into its weights; a single-objective model of another shape, or of
            an objective that is none of these.
    """
    splits = split_of(find, tune, test, protect)
    singles, beside = dict(singles or {}), dict(beside or {})
    check_foldable(model)
    check_fractions(config, math.prod(unit_shape(model.cfg, Gates.site)))
    check_names(splits, singles, beside)
    for single in singles.values():
        check_comparable(model, single)
    for other in (*singles.values(), *beside.values()):
        check_output(other)  # else refused only when everything else is done
    _check_read(model, splits, singles | beside, options)

    def say(what: str) -> str | None:
        return f"{progress}: {what}" if progress is not None else None

    found = _found(model, splits, singles, config, say, options)
    tuned = _tuned(model, splits.tune, found.candidates, say, options)
    chosen = best_of(tuned.finalists, config.tolerance)
    gates = chosen.candidate.gates if chosen else torch.ones(unit_shape(model.cfg, Gates.site))
    edits = _edits(chosen, gates, tuned.uniform, config)
    # Once more, under the very edits that are tested.
    conditions = [(), *((Gates(each.gates),) for each in edits)]
    tester, precision = half_where_it_agrees(model, _all(splits.tune), conditions=conditions, **options)
    others = singles | beside
    if tester is not model:
        others = {name: half_where_it_agrees(other, _all(splits.tune), **_without_edits(options)).model for name, other in others.items()}
    tested = [*_tested(tester, splits, edits, others, say, options)]
    return Repair(
        gates=gates,
        chosen=chosen.candidate.name if chosen else None,
        tried=(*tuned.finalists, *tuned.uniform, *tuned.screened),
        tolerance=config.tolerance,
        objectives=splits.names,
        splits=(*found.sizes, *tuned.sizes, *(each.size for each in tested)),
        evidence=tuple(row for each in tested for row in each.evidence),
        shifts={each.size["name"]: each.shifts for each in tested},
        precision=precision,
        output=output_name(model),
        weights=model.origin.weights,
        interventions=len(options.get("interventions", ())),
    )


def check_fractions(config: RepairConfig, neurons: int) -> None:
    """Raises InputError for a share of less than one neuron."""
    for fraction in config.fractions:
        if round(fraction * neurons) == 0:
            least = math.ceil(1e4 / neurons) / 1e4
            raise InputError(f"fractions must be of at least one of the model's {neurons:,} neurons, such as {least:g}, got {fraction}")


def check_names(splits: Splits, singles: Collection[str], beside: Collection[str]) -> None:
    """Raises InputError for single-objective models of no objective, and for a name that two models have."""
    if unknown := [name for name in singles if name not in splits.names]:
        raise InputError(f"singles must be by objective ({', '.join(splits.names)}), got {', '.join(unknown)}")
    if twice := [name for name in beside if name in singles]:
        raise InputError(f"{twice[0]} is among singles and beside: give the other model another name")


def _check_read(model: HookedRewardModel, splits: Splits, others: Mapping[str, HookedRewardModel], options: RunOptions) -> None:
    """Over-long pairs are left out: an objective of which too few are left would have no say, or no interval. What is tested has to be read
    by the other models too."""
    for name in ("find", "tune", "test", "protect"):
        for objective, pairs in getattr(splits, name).items():
            read = encode_for(model, pairs, gradients=name == "find", **options).pairs
            if name in ("tune", "test"):
                check_enough(f"{name}, as the model reads it,", objective, read)
            for label, other in others.items() if name in ("test", "protect") else ():
                if dropped := encode_for(other, list(read), **options).dropped:
                    raise InputError(
                        f"{label} cannot read {dropped} of {len(read)} pairs of {objective} ({name}): give a max_length that suits it"
                    )


def _edits(chosen: Tried | None, gates: Float[Tensor, "layer neuron"], alike: Sequence[Tried], config: RepairConfig) -> list[_Edit]:
    """The repair, and the edits beside it."""
    found = [_Edit("repaired", chosen.candidate.name if chosen else "no edit", gates)]
    found += [_Edit("random", each.name, each.gates) for each in random_like(gates, draws=config.draws, seed=config.seed) if chosen]
    best = max(alike, key=lambda each: each.gain).candidate
    return [*found, _Edit("uniform", best.name, best.gates)]


class _Found(NamedTuple):
    candidates: list[Candidate]
    sizes: list[SplitSizeJson]


def _found(
    model: HookedRewardModel,
    splits: Splits,
    singles: Mapping[str, HookedRewardModel],
    config: RepairConfig,
    say: Say,
    options: RunOptions,
) -> _Found:
    """Every candidate, from effects on the find pairs, of which those count most that are ranked wrong."""
    read = encode_for(model, _all(splits.find), gradients=True, **options)
    quick = half_where_it_agrees(model, read, **options).model
    beside = singles if quick is model else {name: in_half(single) for name, single in singles.items()}
    clean = score(quick, read, progress=say("find pairs as they are"), **options)
    unit = spread_of(clean)
    if unit == 0:
        raise InputError("all rewards of the pairs to find neurons on are the same")
    weights = loss_weights(clean.margin, unit)
    places = {name: [i for i, pair in enumerate(read.pairs) if pair.objective == name] for name in splits.names}
    effects, direct = {}, {}
    for name, own in places.items():
        given: Any = {"weights": weights[own].tolist(), "progress": say(f"effects on {name}"), **options}
        effects[name] = attribute(quick, read.take(own), **given)
        if has_direction(quick):
            direct[name] = direct_effects(quick, read.take(own), **given)
    towards = {
        name: gates_towards(quick, single, read.take(places[name]), progress=say(f"beside the model of {name}"), **options)
        for name, single in beside.items()
    }
    learnt = learnt_gates(quick, read, unit, config=config, progress=say("gates learnt"), **options) if config.learn_steps else None
    sizes = [_size("find", name, [read.pairs[i] for i in own], splits.find[name]) for name, own in places.items()]
    return _Found(candidates_of(effects, config, direct=direct or None, towards=towards, learnt=learnt), sizes)


class _Tuned(NamedTuple):
    finalists: list[Tried]
    screened: list[Tried]
    uniform: list[Tried]
    sizes: list[SplitSizeJson]


def _tuned(model: HookedRewardModel, pairs: Objectives, candidates: list[Candidate], say: Say, options: RunOptions) -> _Tuned:
    """All candidates on some of the tune pairs, and then the best of them, beside all neurons scaled alike, on all tune pairs."""
    every = encode_for(model, _all(pairs), **options)
    few = [(), *((each.intervention,) for each in candidates[:: max(1, len(candidates) // CHECKED_EDITS)])]
    quick = half_where_it_agrees(model, every, conditions=few, **options).model
    some = every.take(_screen(every.pairs))
    screened = _tried(quick, some, candidates, say("all candidates, on some tune pairs"), options)
    best = sorted(screened, key=lambda each: each.gain, reverse=True)[:FINALISTS]
    chosen = [each.candidate for each in best]
    found = _tried(quick, every, [*chosen, *uniform(unit_shape(model.cfg, Gates.site))], say("the best, on all tune pairs"), options)
    left = [replace(each, finalist=False) for each in screened if each.candidate not in chosen]
    sizes = [_size("tune", name, [pair for pair in every.pairs if pair.objective == name], pairs[name]) for name in pairs]
    return _Tuned(found[: len(chosen)], left, found[len(chosen) :], sizes)


def _screen(pairs: Sequence[PreferencePair]) -> list[int]:
    """At most `SCREENED` pairs of each objective, evenly through the data; pairs of one prompt stand together there."""
    places: dict[str | None, list[int]] = {}
    for i, pair in enumerate(pairs):
        places.setdefault(pair.objective, []).append(i)
    return sorted(own[i] for own in places.values() for i in {round(i) for i in np.linspace(0, len(own) - 1, min(SCREENED, len(own)))})


def _tried(
    model: HookedRewardModel, pairs: EncodedPairs, candidates: list[Candidate], progress: str | None, options: RunOptions
) -> list[Tried]:
    conditions = [(), *((each.intervention,) for each in candidates)]
    before, *after = (each.by_objective() for each in sweep(model, pairs, conditions, progress=progress, **options))
    return [tried(each, before, scores) for each, scores in zip(candidates, after, strict=True)]


class _Tested(NamedTuple):
    """What is known of one set of pairs."""

    size: SplitSizeJson
    evidence: list[Compared]
    shifts: tuple[Shift, ...]


def _tested(
    model: HookedRewardModel,
    splits: Splits,
    edits: list[_Edit],
    models: Mapping[str, HookedRewardModel],
    say: Say,
    options: RunOptions,
) -> Iterator[_Tested]:
    """Each objective's test pairs and each protected set, under the edits and by the other models."""
    sets = [
        *((name, pairs, False) for name, pairs in splits.test.items()),
        *((name, pairs, True) for name, pairs in splits.protect.items()),
    ]
    for name, pairs, protected in sets:
        encoded = encode_for(model, pairs, **options)
        conditions = [(), *((Gates(each.gates),) for each in edits)]
        before, *after = sweep(model, encoded, conditions, progress=say(f"{name}, tested"), **options)
        rows = [
            compared(each.kind, each.name, name, before, scores, protected=protected) for each, scores in zip(edits, after, strict=True)
        ]
        for label, other in models.items():
            scores = score(other, list(encoded.pairs), progress=say(f"{name}, by {label}"), **_without_edits(options))
            rows.append(compared("model", label, name, before, scores, protected=protected))
        size = _size("protect" if protected else "test", name, encoded.pairs, pairs)
        yield _Tested(size, rows, battery(before, after[0], answers_of(encoded)))


def _without_edits(options: RunOptions) -> RunOptions:
    """Interventions are of the model that is repaired."""
    return {**options, "interventions": ()}


def _all(parts: Objectives) -> list[PreferencePair]:
    return [pair for pairs in parts.values() for pair in pairs]


def _size(
    split: Literal["find", "tune", "test", "protect"], name: str, read: Sequence[PreferencePair], given: Sequence[PreferencePair]
) -> SplitSizeJson:
    """Of the pairs that were read; the hash is of those given."""
    prompts = {prompt_name(pair.chosen[:-1]) for pair in read}
    return {"split": split, "name": name, "pairs": len(read), "prompts": len(prompts), "hash": data_hash(given)}
