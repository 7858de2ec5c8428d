"""Every result is a table, with units in the names of its columns, and has a short repr."""

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from helpers.page_runs import tiny_run
from helpers.repair_pairs import plain_pairs

import tl_reward
from tl_reward.analyses.ablation_curves import AblationPoint
from tl_reward.data.encoding import EncodedPairs
from tl_reward.data.readers import load_pairs
from tl_reward.measures.intervals import Estimate
from tl_reward.model.tiny import tiny_reward_model
from tl_reward.neurons import NeuronSet
from tl_reward.running.batches.batching import encode_for
from tl_reward.sites import Site

# Public classes that are what a user gives, or are made of no numbers of pairs or neurons.
NO_RESULTS = {
    "Alignment", "Gates", "HeadPatch", "HookedRewardModel", "InputError", "Intervention", "MeanAblation", "Message", "Patch", "PathPatch",
    "PreferencePair", "RepairConfig", "ResampleAblation", "Results", "ScaleAblation", "Site", "Source", "TrainingConfig", "ZeroAblation",
}  # fmt: skip
RESULTS = [name for name in tl_reward.__all__ if inspect.isclass(getattr(tl_reward, name)) and name not in NO_RESULTS]
BOTH = [pair for objective in ("helpful", "harmless") for pair in load_pairs("embedded", split="test", objective=objective, limit=4)]


@cache
def made() -> dict[str, Any]:
    """One of each, of a tiny model."""
    model, other = tiny_reward_model(), tiny_reward_model(seed=1)
    discovery = tl_reward.discover(model, BOTH)
    attribution = tl_reward.attribute(model, BOTH)
    neurons = NeuronSet.top(attribution.effect, k=12)
    comparison = tl_reward.compare_with_exact(model, BOTH, {"gradient": attribution.effect}, top=4, random=5)
    scores = tl_reward.score(model, BOTH)
    by_objective = ({name: plain_pairs(f"{split} {name}") for name in ("helpful", "harmless")} for split in ("find", "tune", "test"))
    few = tl_reward.RepairConfig(fractions=(0.1,), strengths=(0.0,), learn_steps=0, draws=1)
    sets = {"top": neurons, "few": NeuronSet([(0, 3), (1, 7)]), "0.3": NeuronSet([(0, 3)])}
    return {
        "AblationCurve": tl_reward.ablation_curve(model, BOTH, attribution.effect, fractions=(0.1, 0.6), draws=2),
        "Activations": tl_reward.activations(model, BOTH, ["mlp_post", Site(1, "attn_z")]),
        "Agreement": comparison.agreement["gradient"],
        "Attribution": attribution,
        "Comparison": comparison,
        "Contrast": discovery.contrast["mlp_post"],
        "DirectAttribution": tl_reward.direct_attribution(model, BOTH),
        "Discovery": discovery,
        "Effects": tl_reward.set_effects(model, BOTH, sets),
        "Estimate": scores.accuracy(),
        "Examples": tl_reward.collect_examples(model, BOTH, neurons),
        "ModelPatching": tl_reward.patch_models(model, other, BOTH, attribution.effect, fractions=[0.1, 1.0], draws=1),
        "NeuronSet": neurons,
        "PairPatching": tl_reward.patch_pairs(model, BOTH, kinds=["mlp_out", "attn_z"], neurons=neurons),
        "Repair": tl_reward.repair(model, *by_objective, beside={"other": other}, config=few),
        "RewardLens": tl_reward.reward_lens(model, BOTH),
        "Scores": scores,
        "Selectivity": discovery.selectivity(),
        "SetAblations": tl_reward.ablate_sets(model, BOTH, sets, draws=2),
        "Tension": tl_reward.tension(model, BOTH),
    }


def test_every_result_is_made_here():
    assert sorted(made()) == RESULTS


@pytest.mark.parametrize("name", RESULTS)
def test_its_repr_is_short(name: str):
    text = repr(made()[name])
    assert text.startswith(name) and len(text) < 500 and "\n" not in text


def test_what_is_inside_results_has_a_short_repr_too():
    model = tiny_reward_model()
    curve = made()["AblationCurve"]
    inner = [
        curve.points[0],
        encode_for(model, BOTH),
        made()["RewardLens"].curves[0],
        tiny_run(),
        tl_reward.token_attribution(model, "Hello, you!"),
    ]
    assert isinstance(inner[0], AblationPoint) and isinstance(inner[1], EncodedPairs)
    assert all(len(repr(each)) < 500 for each in inner)
    large = NeuronSet((layer, neuron) for layer in range(30) for neuron in range(200))
    assert repr(large) == "NeuronSet of 6,000 in 30 layers: (0, 0), (0, 1), (0, 2), (0, 3), (0, 4), (0, 5), …"
    assert eval(repr(NeuronSet([(0, 3), (1, 7)]))) == NeuronSet([(0, 3), (1, 7)]) and repr(NeuronSet()) == "NeuronSet([])"


@pytest.mark.parametrize("name", RESULTS)
def test_its_table_is_tidy(name: str):
    """Plain columns of one length, numbers of floats with a unit in their name, and the ends of an interval beside it."""
    table: Any = made()[name].to_frame()
    assert type(table).__mro__[0] is pandas.DataFrame and len(table) > 0 and table.columns.is_unique
    assert isinstance(table.index, pandas.RangeIndex)
    bare = {"q_value", "p_value", "welch_t", "value", "low", "high"}  # of no unit, or that of what is estimated
    for column in table.columns:
        assert table[column].dtype.kind != "f" or "(" in column or column in bare, column
    for column in table.columns[table.columns.str.contains(", low ")]:
        middle, high = column.replace(", low", ""), column.replace(", low", ", high")
        has = table[column].notna() & table[middle].notna()
        assert (table[column][has] <= table[middle][has] + 1e-12).all() and (table[middle][has] <= table[high][has] + 1e-12).all()


def same(column: Any, values: Any) -> None:
    np.testing.assert_array_equal(np.asarray(column), np.asarray(values).ravel())


def same_estimates(table: Any, name: str, unit: str, found: list[Estimate]) -> None:
    for i, part in enumerate(("", ", low", ", high")):
        same(table[f"{name}{part} ({unit})"], [each[i] for each in found])


def of_scores(found: Any, table: Any) -> None:
    same(table["id"], found.ids)
    same(table["objective"], found.objectives)
    for side in ("chosen", "rejected", "margin"):
        same(table[f"{side} (reward units)"], getattr(found, side))


def of_activations(found: Any, table: Any) -> None:
    of_scores(found.scores, table)
    same(table["id"], found.ids)


def of_contrast(found: Any, table: Any) -> None:
    for column in ("welch_t", "q_value", "p_value"):
        same(table[column], getattr(found, column))
    same(table["cohens_d (standard deviations)"], found.cohens_d)
    same(table["auroc (probability)"], found.auroc)


def of_discovery(found: Any, table: Any) -> None:
    for site, part in table.groupby("site"):
        name = "norm" if site == "attn_z" else "mean"
        for side, values in zip(("chosen", "rejected"), found.by_side[site, name], strict=True):
            same(part[f"{name}, {side} (activation)"], values)
        same(part["auroc (probability)"], found.contrast[site].auroc)
    part = table[table.site == "mlp_gate"]
    same(part["probability, rejected (share of tokens)"], found.by_side["mlp_gate", "probability"][1])
    same(part["firing, helpful (share of tokens)"], found.firing["mlp_gate", "helpful"])
    row = part[(part.layer == 1) & (part.neuron == 5)].iloc[0]
    assert row["rms, chosen (activation)"] == float(found.by_side["mlp_gate", "rms"][0, 1, 5])
    assert table["norm, chosen (activation)"].notna().sum() == (table.site == "attn_z").sum()


def of_attribution(found: Any, table: Any) -> None:
    same(table["effect (reward units)"], found.effect)
    same(table["standard error (reward units)"], found.error)
    same(table["q_value"], found.q_value())
    assert table.iloc[50][["layer", "neuron"]].tolist() == [1, 2]


def of_tension(found: Any, table: Any) -> None:
    for objective, part in table.groupby("objective"):
        same(part["effect (reward units)"], found.effects[objective].effect)
        for name, neurons in found.quadrants.items():
            here = part[part.quadrant == name]
            assert [*zip(here.layer, here.neuron, strict=True)] == [*neurons]


def of_effects(found: Any, table: Any) -> None:
    parts = {"": found} | found.by_objective()
    assert [*table.objective.unique()] == [*parts] and len(parts) == 3
    for objective, part in parts.items():
        here = table[table.objective == objective]
        same(here["set"], [*found.sets])
        same_estimates(here, "effect on margin", "reward units", part.mean_margin())
        same_estimates(here, "effect on rejected", "reward units", part.mean_reward("rejected"))
        same_estimates(here, "effect on accuracy", "share", part.accuracy())
    assert table.iloc[2][["layer", "neuron"]].tolist() == [0, 3] and table.iloc[0].layer == -1


def of_comparison(found: Any, table: Any) -> None:
    same(table["estimated effect (reward units)"], found.estimated["gradient"])
    same_estimates(table, "exact effect", "reward units", found.effects.mean_margin())
    same(table["drawn"], found.drawn)
    assert [f"{row.layer}.{row.neuron}" for row in table.itertuples()] == [*found.effects.sets]


def of_agreement(found: Any, table: Any) -> None:
    assert tuple(table.loc[table.figure == "spearman", ["value", "low", "high"]].iloc[0]) == found.spearman[:3]
    assert [*table.figure] == ["spearman", "pearson", "sign", *(f"precision at {k}" for k in found.precision)]


def of_direct_attribution(found: Any, table: Any) -> None:
    sums = table.groupby("side")["written (reward units)"].sum()
    assert [sums["chosen"], sums["rejected"]] == pytest.approx(found.reward.tolist(), abs=1e-5)
    row = table[(table.side == "rejected") & (table.part == "neuron") & (table.layer == 1) & (table.unit == 7)]
    same(row["written (reward units)"], found.neuron[1, 1, 7])
    assert (table[table.part == "bias"].layer == -1).all()


def of_sets(found: Any, table: Any) -> None:
    points = getattr(found, "sets", None) or {point.fraction: point for point in found.points}
    key = "set" if "set" in table else "fraction (share of all neurons)"
    clean = table[(table.draw == "clean") & (table.objective == "")]
    same_estimates(clean, "accuracy", "share", [found.clean.accuracy()])
    assert {*table.objective} == {"", "helpful", "harmless"}
    for name, point in points.items():
        here = table[(table[key] == name) & (table.draw != "clean")]
        for draw, scores in {"ranked": point.ranked, **{f"random {i}": each for i, each in enumerate(point.random, 1)}}.items():
            for objective, part in ({"": scores} | scores.by_objective()).items():
                row = here[(here.draw == draw) & (here.objective == objective)]
                same_estimates(row, "margin", "reward units", [part.mean_margin()])
                clean_part = found.clean.by_objective()[objective] if objective else found.clean
                same_estimates(row, "relative drop", "share", [part.relative_drop(clean_part)])
                same(row["neurons (count)"], len(point.neurons))
        assert len(here) == 3 * (1 + len(point.random))


def of_model_patching(found: Any, table: Any) -> None:
    ranked = table[table.draw == "ranked"]
    same_estimates(ranked, "recovered", "share", [found.recovered(point.ranked) for point in found.curve.points])
    same_estimates(ranked, "kept", "share", [found.kept(point.ranked) for point in found.curve.points])
    same_estimates(ranked, "accuracy", "share", [point.ranked.accuracy() for point in found.curve.points])
    same_estimates(table[table.draw == "random 1"], "kept", "share", [found.kept(found.curve.points[0].random[0])])


def of_pair_patching(found: Any, table: Any) -> None:
    for side, direction in enumerate(("noising", "denoising")):
        here = table[table.direction == direction]
        same(here["site"], [cell.kind for cell in found.cells])
        same_estimates(here, "gap moved", "share", found.share(direction))
        same(here["moved (reward units)"], found.moved(direction).mean(1))
        same(here["tokens (count)"], found.tokens[:, side])
    same(table[table.direction == "denoising"]["estimated (reward units)"], found.denoised_estimate.mean(1))
    assert table.iloc[len(found.cells) - 1].layer == -1


def of_lens(found: Any, table: Any) -> None:
    same(table["margin (reward units)"], found.margins())
    same(table["depth"], np.repeat(range(len(found.scores)), len(found.scores[0])))


def of_repair(found: Any, table: Any) -> None:
    assert [*zip(table.kind, table.name, table["tested on"], table.verdict, strict=True)] == [
        (each.kind, each.name, each.tested, each.verdict) for each in found.evidence
    ]
    same(table["p_value"], [each.p_value for each in found.evidence])
    for what, unit in (("accuracy", "share"), ("margin", "standard deviations of the rewards")):
        for part in ("before", "after", "difference"):
            same_estimates(table, f"{what} {part}", unit, [getattr(getattr(each, what), part) for each in found.evidence])


def of_examples(found: Any, table: Any) -> None:
    same(table["peak (activation)"], found.example_peak.double()[found.example >= 0])
    first = found.transcripts[int(found.example[0, 0])]
    assert table.text[0] == "".join(first.tokens) and table["reward (reward units)"][0] == first.reward
    assert {*zip(table.layer, table.neuron, strict=True)} == {*found.neurons}


def of_selectivity(found: Any, table: Any) -> None:
    same(table["entropy (nats)"], found.entropy)
    same(table["eligible"], found.eligible)
    same(table["firing, harmless (share of tokens)"], found.probability["harmless"])


def of_neurons(found: Any, table: Any) -> None:
    assert [*zip(table.layer, table.neuron, strict=True)] == [*found]


def of_estimate(found: Any, table: Any) -> None:
    assert tuple(table.iloc[0]) == found


CHECKS: dict[str, Callable[[Any, Any], None]] = {
    "AblationCurve": of_sets,
    "Activations": of_activations,
    "Agreement": of_agreement,
    "Attribution": of_attribution,
    "Comparison": of_comparison,
    "Contrast": of_contrast,
    "DirectAttribution": of_direct_attribution,
    "Discovery": of_discovery,
    "Effects": of_effects,
    "Estimate": of_estimate,
    "Examples": of_examples,
    "ModelPatching": of_model_patching,
    "NeuronSet": of_neurons,
    "PairPatching": of_pair_patching,
    "Repair": of_repair,
    "RewardLens": of_lens,
    "Scores": of_scores,
    "Selectivity": of_selectivity,
    "SetAblations": of_sets,
    "Tension": of_tension,
}


@pytest.mark.parametrize("name", RESULTS)
def test_the_numbers_of_its_table_are_its_own(name: str):
    CHECKS[name](made()[name], made()[name].to_frame())


def test_a_table_of_no_neuron_has_its_columns():
    assert [*NeuronSet().to_frame().columns] == ["layer", "neuron"] and len(NeuronSet().to_frame()) == 0


def test_the_table_of_one_transcript():
    found = tl_reward.token_attribution(tiny_reward_model(), "Hello, you!")
    table: Any = found.to_frame()
    same(table["written (reward units)"], found.head)
    assert table["token"][3] == found.tokens[3] and table.position[3] == 3
    assert table["written (reward units)"].sum() + found.rest == pytest.approx(found.reward, abs=1e-5)
    assert torch.is_tensor(found.head)
