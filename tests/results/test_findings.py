"""What is found in a run: each sentence where the numbers carry it, none where they do not, and every number of it computed anew."""

from collections.abc import Callable
from statistics import NormalDist
from typing import Any

import pytest
from helpers.found import agreement, cell, curve, effects, est, lens, overlap, patches, point, pull, restoring, scores, sections
from helpers.hostile_runs import EVIL, changed_estimates, rewritten, whole_run
from helpers.repairs import made_up_repair
from scipy.stats import poisson

from tl_reward.results.findings.clear import side_of
from tl_reward.results.findings.edits import repaired, sets_zeroed, top_zeroed
from tl_reward.results.findings.estimates import edited_alone, estimates_hold
from tl_reward.results.findings.every import RULES, findings_of
from tl_reward.results.findings.finding import Finding
from tl_reward.results.findings.neurons import answers_told_apart, in_conflict, shared_neurons
from tl_reward.results.findings.patching import decided_at, moves_most, read_out_holds, restored
from tl_reward.results.findings.preferences import prefer_chosen, prefer_rejected
from tl_reward.results.findings.words import clipped, pairs_of, to_digits, with_interval
from tl_reward.results.record_edits import record_repair
from tl_reward.results.sections import Sections
from tl_reward.results.store import Results


def said(rule: Callable[[Sections], Finding | None], **entries: dict[str, Any]) -> str:
    """The sentence of a rule; empty where it finds nothing."""
    found = rule(sections(**entries))
    return found.sentence if found else ""


# When is something clear?


@pytest.mark.parametrize("among", [1, 2, 6, 50])
def test_an_interval_is_made_wider_for_all_that_were_looked_at(among: int):
    z = NormalDist().inv_cdf(1 - 0.025 / among) / NormalDist().inv_cdf(0.975)
    just_clear, not_quite = 0.5 + 0.1 * z + 1e-9, 0.5 + 0.1 * z - 1e-9
    assert side_of(est(just_clear), 0.5, among) == 1 and side_of(est(not_quite), 0.5, among) == 0
    assert side_of(est(1 - just_clear), 0.5, among) == -1


@pytest.mark.parametrize(("n", "among", "side"), [(9, 1, 0), (10, 1, 1), (10, 25, 1), (10, 26, 0), (11, 26, 1)])
def test_an_interval_without_width_is_clear_where_a_sign_test_is(n: int, among: int, side: int):
    assert (2 * 0.5**n <= 0.05 / among) == bool(side) or n < 10
    assert side_of(est(1.0, 0.0, n), 0.5, among) == side


# Scores


def test_rejected_answers_that_are_preferred_are_said_with_their_share():
    low = scores({"value": 0.2143, "low": 0.0952, "high": 0.3333, "n": 42})
    assert (
        said(prefer_rejected, scores={"a": low})
        == "Of 42 embedded helpful test pairs, the mixed model prefers the rejected answer in 79 % [67, 90]."
    )
    assert said(prefer_chosen, scores={"a": low}) == ""
    two = {"a": low, "b": scores(est(0.1, 0.05), model="harmless"), "c": scores(est(0.1, 0.05, 30), dataset="mine", ties=1)}
    assert said(prefer_rejected, scores=two) == (
        "Of 42 embedded helpful test pairs, the mixed model prefers the rejected answer in 79 % [67, 90] and the harmless model in "
        "90 % [85, 95]; of 42 pairs of mine (30 prompts), the mixed model prefers the rejected answer in 90 % [85, 95] (a tie for half)."
    )


def test_chosen_answers_that_are_preferred_are_said_and_how_many_were_looked_at():
    entries = {"a": scores(est(0.8)), "b": scores(est(0.5), model="b"), "c": scores(est(0.2), model="c")}
    found = prefer_chosen(sections(scores=entries))
    assert found is not None and found.sentence == (
        "Of 42 embedded helpful test pairs, the mixed model prefers the chosen answer in 80 % [70, 90]; the b model's 50 % [40, 60] is not "
        "clear."
    )
    assert "Looked at: 3, with intervals made wider for 3 (Bonferroni); clear: 1." in found.rule
    assert found.links == ({"label": "accuracies", "section": "scores", "name": "a"},)


@pytest.mark.parametrize("accuracy", [est(0.55), est(0.9, 0.05, 9), {"value": 0.9, "low": None, "high": None, "n": 1}, est(0.61)])
def test_nothing_is_said_of_an_accuracy_that_may_be_chance(accuracy: dict[str, Any]):
    others = {name: scores(est(0.5)) for name in "bc"}  # with these, 0.61 is too near
    assert not any(said(rule, scores={"a": scores(accuracy), **others}) for rule in (prefer_chosen, prefer_rejected))


def test_preferences_are_looked_at_objective_by_objective():
    parts = {name: {"pairs": 42, "ties": 0, "accuracy": est(value)} for name, value in (("harmless", 0.79), ("helpful", 0.19))}
    entries = {"a": scores(est(0.49, n=84), pairs=84, dataset="mine", objectives=parts)}
    rejected, chosen = (rule(sections(scores=entries)) for rule in (prefer_rejected, prefer_chosen))
    assert rejected is not None and chosen is not None
    assert chosen.sentence == "Of 42 harmless pairs of mine, the mixed model prefers the chosen answer in 79 % [69, 89]."
    assert rejected.sentence == "Of 42 helpful pairs of mine, the mixed model prefers the rejected answer in 81 % [71, 91]."
    assert "Looked at: 2, " in chosen.rule and "Looked at: 2, " in rejected.rule
    unclear = {
        "b": scores(
            est(0.9), model="b", pairs=84, dataset="mine", objectives=parts | {"harmless": parts["harmless"] | {"accuracy": est(0.5)}}
        )
    }
    assert "; the b model's 50 % [40, 60] is not clear" in said(prefer_chosen, scores=entries | unclear)
    pooled = {"a": scores(est(0.9, n=84), pairs=84, objectives={name: part | {"accuracy": est(0.5)} for name, part in parts.items()})}
    assert said(prefer_chosen, scores=pooled) == ""
    # Of 90 pairs, six name no objective: nobody is to think that these were looked at, so that all are looked at together.
    some = {"a": scores(est(0.9, n=90), pairs=90, dataset="mine", objectives=parts)}
    assert said(prefer_chosen, scores=some) == "Of 90 pairs of mine, the mixed model prefers the chosen answer in 90 % [80, 100]."
    assert said(prefer_rejected, scores=some) == ""


@pytest.mark.parametrize(
    ("unclear", "end"), [(4, "the m3 model's 50 % [40, 60] is not clear."), (5, "; 1 more is not clear."), (7, "; 3 more are not clear.")]
)
def test_models_that_are_not_clear_are_never_dropped_in_silence(unclear: int, end: str):
    entries = {"a": scores(est(0.9, 0.01)), **{f"m{i}": scores(est(0.5), model=f"m{i}") for i in range(unclear)}}
    sentence = said(prefer_chosen, scores=entries)
    assert sentence.endswith(end) and sentence.count("model's") == 4


# Edits


def test_a_curve_is_said_at_the_share_nearest_to_a_tenth_that_has_random_sets():
    points = [
        point(est(0.3), est(0.6), [0.8], fraction=0.02),
        point(est(0.4), est(0.5), [0.79, 0.82]),
        point(est(0.0), est(1), [], fraction=0.2),
    ]
    assert said(top_zeroed, ablation={"a": curve(*points)}) == (
        "Zeroing the mixed model's top 10 % of neurons (120, ranked by mean at mlp_gate) lowers accuracy from 80 % to 40 % [30, 50] on "
        "42 pairs of mine (2 random sets of the same layers: 79 to 82 %)."
    )
    assert "top 2 % of neurons" in said(top_zeroed, ablation={"a": curve(points[0], points[2])})


def test_a_rise_is_said_as_a_rise_and_a_test_on_the_finding_pairs_with_a_caution():
    rise = curve(point(est(0.7), est(-2, 1), [0.21]), clean=0.2143, both=5)
    sentence = said(top_zeroed, ablation={"a": rise})
    assert "raises accuracy from 21 % to 70 % [60, 80]" in sentence and sentence.endswith(
        "21 %). CAUTION: 5 of all 42 pairs of mine that were tested also found the neurons."
    )


def test_neurons_of_which_nobody_recorded_what_found_them_have_a_caution():
    named = curve(point(est(0.4), est(0.5), [0.8]), both=None)
    assert "CAUTION: it is not recorded which pairs found the neurons that were tested on 42 pairs of mine." in said(
        top_zeroed, ablation={"a": named}
    )
    assert "CAUTION" not in said(top_zeroed, ablation={"a": curve(point(est(0.4), est(0.5), [0.8]))})


@pytest.mark.parametrize(
    "points",
    [
        [point(est(0.4), est(0.1), [0.8])],  # the change may be none
        [point(est(0.4), est(0.5), [0.8, 0.45])],  # a random set does it too
        [point(est(0.4), est(0.5), [])],  # nothing to compare with
        [point(est(0.4), est(-0.5), [0.8])],  # it rose, and random sets rose more
        [],
    ],
)
def test_nothing_is_said_of_zeroed_neurons_without_a_change_beyond_random_sets(points: list[Any]):
    assert said(top_zeroed, ablation={"a": curve(*points)}) == ""
    assert said(sets_zeroed, sets={"a": curve() | {"sets": {str(i): each for i, each in enumerate(points)}}}) == ""


def test_objectives_are_looked_at_one_by_one():
    clean = scores(
        est(0.5), objectives={"helpful": {"pairs": 20, "accuracy": est(0.9, n=20)}, "harmless": {"pairs": 22, "accuracy": est(0.6, n=22)}}
    )
    after = {"accuracy": est(0.5), "objectives": {"helpful": {"accuracy": est(0.2, n=20)}, "harmless": {"accuracy": est(0.6, n=22)}}}
    drops = {"helpful": est(0.8, n=20), "harmless": est(0.0, n=22)}
    random = {"helpful": [0.85], "harmless": [0.6]}
    zeroed = point(est(0.5), est(0.0), [0.5], ranked=after, relative_drop_by_objective=drops, random_by_objective=random)
    expected = "from 90 % to 20 % [10, 30] on 20 helpful pairs of mine (1 random set of the same layers: 85 %)"
    sentence = said(top_zeroed, ablation={"a": curve(zeroed, clean=0.5) | {"clean": clean}})
    assert expected in sentence and sentence.endswith("The other 1 of 2 looked at does not meet this rule.")
    assert said(sets_zeroed, sets={"a": curve() | {"clean": clean, "sets": {"shared": zeroed}}}) == (
        f'Zeroing sets: the mixed model\'s set "shared" (120 neurons) lowers accuracy {expected}. The other 1 of 2 looked at does not meet '
        "this rule."
    )


def test_a_repair_is_said_with_its_paired_differences_and_the_biases_that_moved():
    results = Results()
    record_repair(results, "mixed", made_up_repair())
    entry = results.entry("repair", "mixed")
    rows = [row for row in entry["evidence"] if row["kind"] == "repaired"]
    found = repaired(results.sections)
    assert found is not None and len(rows) == 4
    # Of 0.052, 0.011, -0.041 and 0.004, each +- 0.03: wider for four, the interval of the third one ends at -0.003.
    assert "accuracy on helpful by +5.2 points [+2.2, +8.2] (60 prompts; random neurons: -0.4 to +0.4)" in found.sentence
    assert "accuracy on safety by -4.1 points [-7.1, -1.1] (60 prompts" in found.sentence and "harmless" not in found.sentence
    assert f"({len(entry['neurons'])} of 96 neurons scaled, chosen on other pairs)" in found.sentence
    verdicts = [shift["verdict"] for shifts in entry["shifts"].values() for shift in shifts if shift["good"] == "near 0"]
    assert (
        f"Of {len(verdicts)} figures of bias, {verdicts.count('reversed')} is reversed and {verdicts.count('worse')} are worse."
        in found.sentence
    )
    assert found.sentence.endswith("The other 2 of 4 looked at do not meet this rule.")


@pytest.mark.parametrize(("p_value", "draw", "there"), [(0.0125, 0.05, True), (0.02, 0.0, False), (0.01, 0.053, False), (0.01, -0.2, True)])
def test_a_repair_must_be_clear_of_all_tests_and_of_random_neurons(p_value: float, draw: float, there: bool):
    results = Results()
    record_repair(results, "mixed", made_up_repair())
    entry = results.entry("repair", "mixed")
    for row in entry["evidence"]:
        if row["kind"] == "random" and row["tested"] == "helpful":
            row["accuracy"]["difference"]["value"] = draw
        elif row["kind"] == "repaired":
            row["p_value"] = p_value if row["tested"] == "helpful" else 0.01
    sentence = said(repaired, repair={"mixed": entry})
    assert ("accuracy on helpful" in sentence) == there and "accuracy on safety" in sentence


def test_nothing_is_said_of_a_repair_that_edits_nothing_or_moves_nothing():
    results = Results()
    record_repair(results, "mixed", made_up_repair(edited=False))
    assert repaired(results.sections) is None
    still = Results()
    record_repair(still, "mixed", made_up_repair())
    assert repaired(changed_estimates(still, lambda each: each | {"low": -1.0, "high": 1.0}).sections) is None


# Sets of neurons


def test_conflict_is_said_beside_chance_with_its_side():
    entries = {"a": pull(0.62, 0.47, 0.53), "b": pull(0.25, 0.44, 0.52, neurons=80, model="helpful")}
    assert said(in_conflict, tension=entries) == (
        "Of the neurons that clearly move both objectives' margins, these raise one and lower the other: 62 % in the mixed model (124 of "
        "200; more than by chance, 47 to 53 %) and 25 % in the helpful model (20 of 80; fewer than by chance, 44 to 52 %). Estimated by "
        "gradient on 30 harmless and 40 helpful pairs."
    )


@pytest.mark.parametrize("entry", [pull(0.5, 0.47, 0.53), pull(0.62, 0.47, 0.53, p=0.03), pull(0.9, 0.1, 0.8, neurons=9)])
def test_conflict_within_chance_or_of_few_neurons_is_not_said(entry: Any):
    assert said(in_conflict, tension={"a": entry, "b": pull(0.5, 0.4, 0.6)}) == ""


def test_shared_neurons_are_said_beside_what_the_layers_give():
    a, b = [[0, i] for i in range(100)], [[0, i] for i in range(50, 150)]
    low, high = poisson.ppf([0.025, 0.975], 100 * 100 / 1000)
    found = shared_neurons(sections(overlap={"x": overlap(a, b)}))
    assert found is not None and found.sentence == (
        "Of the top 5 % of neurons (100 each, ranked by mean at mlp_gate), sets share more than by chance within layers: a and b 50 "
        f"(50 %; by chance {low:.0f} to {high:.0f})."
    )
    assert [each.get("sets") for each in found.links] == [None, ["a", "b"]] and found.links[1]["label"] == "50 that all 2 share"
    fewer = said(shared_neurons, overlap={"x": overlap([[0, i] for i in range(300)], [[0, i] for i in range(290, 590)])})
    assert "sets share fewer than by chance within layers: a and b 10 (3 %; by chance 72 to 109)" in fewer


def test_shared_neurons_within_chance_are_not_said():
    # 10 are expected within the only layer that they are in; over the whole model it would be 5.
    assert said(shared_neurons, overlap={"x": overlap([[0, i] for i in range(100)], [[0, i] for i in range(84, 184)])}) == ""
    assert said(shared_neurons, overlap={"x": overlap([[0, 1]], [[0, 1]])}) == ""


def test_sets_of_one_model_by_two_scores_are_not_compared():
    a, b = [[0, i] for i in range(100)], [[0, i] for i in range(50, 150)]

    def by_two(one: str, other: str) -> dict[str, Any]:
        found = overlap(a, b)
        pairs = [{"a": one, "b": other, "shared": found["pairs"][0]["shared"]}]
        return {"x": found | {"score": "mean, gain", "top": {one: a, other: b}, "pairs": pairs}}

    assert "sets share more" in said(shared_neurons, overlap=by_two("one, mean at mlp_gate", "other, mean at mlp_gate"))
    assert said(shared_neurons, overlap=by_two("one, mean at mlp_gate", "one, gain at mlp_gate")) == ""
    assert said(shared_neurons, overlap=by_two("mean at mlp_gate", "gain at mlp_gate")) == ""


def test_neurons_that_tell_answers_apart_are_counted():
    contrast = {"chosen": 42, "rejected": 40, "discoveries": 123, "neurons": 1000}
    assert said(
        answers_told_apart, discovery={"mixed": {"contrast": {"mlp_post": contrast, "mlp_gate": contrast | {"discoveries": 456}}}}
    ) == (
        "Mean activations differ between chosen and rejected answers (false discovery rate 5 %) in 456 of 1,000 neurons of the mixed model "
        "(42 and 40 transcripts)."
    )
    found = answers_told_apart(sections(discovery={"mixed": {"contrast": {"mlp_post": contrast}}}))
    assert found is not None and "transcripts taken as independent" in found.rule
    for none in ({}, {"mlp_gate": contrast | {"discoveries": 0}}, {"mlp_gate": contrast | {"rejected": 9}}):
        assert said(answers_told_apart, discovery={"mixed": {"contrast": none}}) == ""


# Single neurons


def test_estimates_that_rank_as_exact_effects_are_said_with_how_many_were_drawn():
    found = estimates_hold(sections(attribution={"x": agreement(est(0.9))}))
    assert found is not None and found.sentence == (
        "The rank correlation (Spearman) of estimated with exact effects of single neurons is 0.90 [0.80, 1.00] in the mixed "
        "model on 50 pairs of mine (method 0; 30 neurons; 0.40 [0.10, 0.70] over the 12 of them that were drawn at random)."
    )
    assert found.links[-1] == {"label": "neuron 1.7", "section": "attribution", "name": "x", "model": "mixed", "neuron": [1, 7]}


@pytest.mark.parametrize("spearmans", [[est(0.05)], [est(0.11), est(0.1)], [{"value": None, "low": None, "high": None, "n": 30}]])
def test_estimates_that_may_be_no_better_than_chance_are_not_said(spearmans: list[Any]):
    # The second is clear alone, and not as the best of two methods.
    assert said(estimates_hold, attribution={"x": agreement(*spearmans)}) == ""


def test_estimates_that_rank_against_exact_effects_are_said_too():
    sentence = said(estimates_hold, attribution={"x": agreement(est(0.9)), "y": agreement(est(-0.9)), "z": agreement(est(0.0))})
    assert "neurons is 0.90 [0.80, 1.00] in" in sentence and "; -0.90 [-1.00, -0.80] in" in sentence
    assert sentence.endswith("The other 1 of 3 looked at does not meet this rule.")


def test_all_neurons_together_are_not_edited_alone():
    rows = {"a": est(0.3), "b": est(-0.5), "together": est(9.0)}
    sentence = said(edited_alone, effects={"x": effects(**rows)})
    assert sentence.startswith("Of 2 neurons edited alone (kind: zero), 2 clearly") and "is that of b " in sentence
    several = {"x": effects(**rows), "y": effects(**rows) | {"kind": "mean"}, "z": effects(**rows) | {"dataset": "theirs"}}
    assert said(edited_alone, effects=several).startswith(
        "Of 6 tests of 2 neurons edited alone (kinds: zero and mean; 2 data sets), 6 clearly change the margin: it falls "
        "for 3 and rises for 3."
    )
    one_set = effects(a=est(0.3))
    one_set["effects"][0]["neurons"] = [[0, 1], [0, 2]]
    assert said(edited_alone, effects={"x": one_set}).startswith("Of 1 neuron or set edited alone")


def test_neurons_edited_alone_are_counted_by_what_the_margin_does():
    found = edited_alone(sections(effects={"x": effects(a=est(0.3), b=est(-0.5), c=est(0.1))}))
    assert found is not None and found.sentence == (
        "Of 3 neurons edited alone (kind: zero), 2 clearly change the margin: it falls for 1 and rises for 1. The largest change "
        "is that of b in the mixed model (kind: zero): the margin rises by 0.5 [0.4, 0.6] reward units on 42 pairs of mine."
    )
    assert found.links[-1].get("neuron") == [0, 1]
    assert said(edited_alone, effects={"x": effects(a=est(0.09), b=est(-0.05))}) == ""


def test_heads_are_not_called_neurons_nor_counted_as_such():
    of_heads = {"site": "attn_z"}
    rows = {"a": est(0.3), "b": est(-0.5)}
    found = edited_alone(sections(effects={"x": effects(**rows), "y": effects(**rows) | of_heads}))
    assert found is not None and found.sentence.startswith("Of 4 neurons or attention heads edited alone (kind: zero), 4 clearly")
    alone = edited_alone(sections(effects={"y": effects(**rows) | of_heads}))
    assert alone is not None and alone.sentence.startswith("Of 2 attention heads edited alone")
    ranked = estimates_hold(sections(attribution={"x": agreement(est(0.9)) | of_heads}))
    assert (
        ranked is not None
        and "effects of single attention heads is 0.90" in ranked.sentence
        and "; 30 attention heads; " in ranked.sentence
    )
    # A head has no page of its own: a link would lead to the neuron of its number.
    assert not any("neuron" in each for finding in (alone, ranked) for each in finding.links)


# Patches, and the lens


def test_the_patch_that_moves_most_is_said_among_how_many():
    cells = [
        cell("attn_out", 3, est(0.2), est(0.2)), cell("attn_z", 4, est(0.4), est(0.5), unit=2), cell("mlp_out", 5, est(0.1), est(0.1)),
        cell("resid_post", 9, est(1, 0.0), est(1, 0.0)), cell("mlp_post", None, est(0.9), est(0.9)),
    ]  # fmt: skip
    assert said(moves_most, patching={"x": patches(*cells)}) == (
        "Of 3 single patches in the mixed model, attn_z, head 2 of layer 4 (tokens: readout) has the largest share of the "
        "reward gap within a pair: noising 40 % [30, 50], denoising 50 % [40, 60] (42 pairs of mine)."
    )
    assert said(moves_most, patching={"x": patches(cells[2], *cells[3:])}) == ""  # its interval begins at 0
    assert said(moves_most, patching={"x": patches(*cells[3:])}) == ""


def test_the_layer_is_said_from_which_the_read_out_holds_most_of_the_gap():
    def run(*shares: float) -> Any:
        return patches(*(cell("resid_post", layer, est(share), est(share + 0.01)) for layer, share in enumerate(shares)))

    assert said(read_out_holds, patching={"x": run(0.9, 0.2, 0.8, 0.9, 1.0)}) == (
        "The read-out token's residual stream alone carries more than half of a pair's reward gap in the mixed model from layer 2 of 5 on "
        "(there: noising 80 % [70, 90], denoising 81 % [71, 91]; 42 pairs of mine)."
    )
    assert said(read_out_holds, patching={"x": run(0.1, 0.2, 0.5, 0.6, 1.0)}) == ""  # the last layer's holds all of it anyway
    elsewhere = patches(*(cell("resid_post", layer, est(0.9), est(0.9), where="all") for layer in range(3)))
    assert said(read_out_holds, patching={"x": elsewhere}) == ""


def test_what_another_model_gives_back_is_said_beside_random_sets():
    assert said(restored, model_patching={"x": restoring(est(0.6, n=18), [0.1, None, 0.2])}) == (
        "Setting the mixed model's top 5 % of neurons (60, by gain) to their values in the helpful model gives back 60 % [50, 70] of the "
        "20 of 42 pairs of mine that helpful alone has right (18 prompts; 2 random sets of the same layers: 10 to 20 %). Of those that "
        "mixed has right, it keeps 90 % [85, 95] (42 prompts)."
    )
    for recovered, random in [
        (est(0.6), [0.55]),
        (est(0.05), [0.0]),
        (est(0.6), [None]),
        ({"value": None, "low": None, "high": None, "n": 0}, [0.1]),
    ]:
        assert said(restored, model_patching={"x": restoring(recovered, random)}) == ""


def test_the_depth_is_said_from_which_on_accuracy_is_clear():
    run = lens(est(0.5), est(0.8), est(0.5), est(0.75), est(0.9), decided=[0, 4, 3, 1, 4])
    assert said(decided_at, lens={"x": run}) == (
        "Read from the residual stream, accuracy is clear of 50 %, on the side where it ends, from 3 of 4 layers on in "
        "the mixed model (accuracy 75 % [65, 85] there, 90 % [80, 100] at the end; half of 5 pairs of mine (42 "
        "prompts) keep their preference from 3 layers on)."
    )
    assert said(decided_at, lens={"x": lens(est(0.9), est(0.9), est(0.55))}) == ""


# All of them


def test_at_most_eight_are_said_in_a_fixed_order_and_one_where_nothing_is_found():
    every = sections(
        scores={"a": scores(est(0.9, 0.01)), "b": scores(est(0.1, 0.01), model="b")},
        ablation={"a": curve(point(est(0.4), est(0.5), [0.8]))},
        sets={"a": curve() | {"sets": {"s": point(est(0.4), est(0.5), [0.8])}}},
        model_patching={"x": restoring(est(0.6), [0.1])},
        tension={"a": pull(0.62, 0.47, 0.53)},
        overlap={"x": overlap([[0, i] for i in range(99)], [[0, i] for i in range(99)])},
        patching={"x": patches(cell("mlp_out", 1, est(0.5), est(0.5)))},
        attribution={"x": agreement(est(0.9))},
    )
    found = findings_of(every)
    assert len(found) == 8 and "rejected" in found[0].sentence and "chosen" in found[1].sentence
    assert found == [finding for rule in RULES if (finding := rule(every)) is not None][:8]
    assert estimates_hold(every) not in found  # the ninth
    assert [each.sentence for each in findings_of(sections(scores={"a": scores(est(0.5))}))] == [
        "No finding: nothing in this run meets a rule of findings."
    ]
    assert [each.sentence for each in findings_of(sections())] == ["No finding: this run holds nothing that a rule of findings looks at."]


@pytest.mark.parametrize(
    "change",
    [
        lambda each: each | {"low": None, "high": None},
        lambda each: each | {"value": 1e308, "low": 1e307, "high": 1.7e308, "n": 2**62},
        lambda each: each | {"value": -1e308, "low": -1.7e308, "high": -1e307, "n": 50},
        lambda each: each | {"n": -3},
        lambda each: each | {"value": 0.0, "low": 0.0, "high": 0.0, "n": 0},
    ],
)
def test_no_number_of_a_run_stops_a_save(change: Callable[[dict[str, Any]], dict[str, Any]]):
    assert findings_of(changed_estimates(whole_run(), change).sections)


def test_an_interval_that_is_missing_is_no_interval_of_zeros():
    missing: Any = {"value": 0.7, "low": None, "high": None, "n": 1}
    assert with_interval(missing) == "70 % [–]" and to_digits(missing) == "0.70 [–]"
    assert with_interval(est(0.0)) == "0 % [-10, 10]"


def test_one_prompt_and_one_random_set_are_singular():
    run = restoring(est(0.6), [0.1])
    run["points"][0]["kept"] = est(0.9, n=1)
    sentence = said(restored, model_patching={"x": run})
    assert "; 1 random set of" in sentence and "(1 prompt)" in sentence
    assert pairs_of(2, "mine", 1) == "2 pairs of mine (1 prompt)"


def test_control_characters_of_a_stranger_are_dropped():
    assert clipped("he\x1b[31mlp \u202eful\u2066\x00\nb") == "he[31mlp ful b"


def test_a_strangers_names_are_one_short_line_of_a_sentence():
    entries = {"a": scores(est(0.9, 0.01), model=EVIL * 3, dataset=EVIL * 3)}
    (found,) = findings_of(sections(scores=entries))
    assert "\n" not in found.sentence and len(found.sentence) < 250
    assert findings_of(rewritten(whole_run(), lambda text: text + EVIL).sections)
