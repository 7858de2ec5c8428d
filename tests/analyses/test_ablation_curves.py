"""Ablation curves: exact sets, matched controls, and the model unharmed."""

import numpy as np
import pytest
import torch

from tl_reward.analyses.ablation_curves import ablate_sets, ablation_curve
from tl_reward.analyses.discovery import discover
from tl_reward.data.readers import load_pairs
from tl_reward.errors import InputError
from tl_reward.interventions.ablations import ZeroAblation, random_like
from tl_reward.measures.scores import Scores
from tl_reward.neurons import NeuronSet
from tl_reward.running.scoring import score

PAIRS = load_pairs("embedded", split="test", limit=6)


@pytest.fixture(scope="module")
def ranking(tiny):
    return discover(tiny, load_pairs("embedded", split="find", limit=6)).ranking("mean")


def test_each_point_is_the_score_with_exactly_its_neurons_zeroed(tiny, ranking):
    curve = ablation_curve(tiny, PAIRS, ranking, fractions=(0.1, 0.25), draws=2, seed=3)
    assert curve.clean.chosen == pytest.approx(score(tiny, PAIRS).chosen)
    for point, count in zip(curve.points, (10, 24), strict=True):  # of 96 neurons
        assert point.neurons == NeuronSet.top(ranking, k=count)
        expected = score(tiny, PAIRS, interventions=[ZeroAblation(point.neurons)])
        assert point.ranked.chosen == pytest.approx(expected.chosen)
        controls = random_like(point.neurons, 48, draws=2, seed=3)
        for drawn, neurons in zip(point.random, controls, strict=True):
            assert drawn.chosen == pytest.approx(score(tiny, PAIRS, interventions=[ZeroAblation(neurons)]).chosen)
            assert not neurons & point.neurons
            assert {k: len(v) for k, v in neurons.by_layer().items()} == {k: len(v) for k, v in point.neurons.by_layer().items()}
        assert controls[0] != controls[1]


def test_the_model_is_unharmed_after_a_curve(tiny, ranking):
    before = score(tiny, PAIRS).chosen
    ablation_curve(tiny, PAIRS, ranking, fractions=(0.5,), draws=1)
    assert score(tiny, PAIRS).chosen == pytest.approx(before)


def test_ablating_every_neuron_has_no_random_band(tiny, ranking):
    (point,) = ablation_curve(tiny, PAIRS, ranking, fractions=(1.0,), draws=2).points
    assert len(point.neurons) == 96 and point.random == ()
    assert point.to_json(score(tiny, PAIRS))["random_accuracy"] == []


def test_ties_across_the_cut_are_counted(tiny):
    flat = torch.zeros(2, 48)
    flat[0, 0] = 1
    (point,) = ablation_curve(tiny, PAIRS[:2], flat, fractions=(0.1,), draws=0).points
    assert len(point.neurons) == 10 and point.ties == 86


def test_bad_input(tiny, ranking):
    with pytest.raises(InputError, match=r"fraction must be in \(0, 1\], got 1.5"):
        ablation_curve(tiny, PAIRS, ranking, fractions=(0.1, 1.5))
    with pytest.raises(InputError, match=r"\[2, 48\], got \[2, 10\]"):
        ablation_curve(tiny, PAIRS, ranking[:, :10])


def test_sets_of_neurons_and_of_heads_beside_random_ones(tiny):
    pairs = [p for objective in ("helpful", "harmless") for p in load_pairs("embedded", split="test", objective=objective, limit=3)]
    sets = {"a": NeuronSet([(0, 3), (1, 7), (1, 9)]), "empty": NeuronSet()}
    found = ablate_sets(tiny, pairs, sets, draws=2, seed=1)
    assert found.sets["a"].ranked.chosen == pytest.approx(score(tiny, pairs, interventions=[ZeroAblation(sets["a"])]).chosen)
    assert found.sets["empty"].ranked.chosen == pytest.approx(found.clean.chosen) and found.sets["empty"].random == ()
    for drawn, neurons in zip(found.sets["a"].random, random_like(sets["a"], 48, draws=2, seed=1), strict=True):
        assert drawn.chosen == pytest.approx(score(tiny, pairs, interventions=[ZeroAblation(neurons)]).chosen)
    entry = found.to_json()["sets"]["a"]
    before, after = found.clean.accuracy().value, found.sets["a"].ranked.accuracy().value
    assert entry["relative_drop"]["value"] == pytest.approx((before - after) / before if before else 0)
    assert set(entry["relative_drop_by_objective"]) == set(entry["random_by_objective"]) == {"harmless", "helpful"}
    heads = discover(tiny, pairs, sites=["attn_z"]).ranking("norm", "attn_z")
    (point,) = ablation_curve(tiny, pairs, heads, fractions=(0.25,), draws=1, site="attn_z").points
    expected = score(tiny, pairs, interventions=[ZeroAblation(NeuronSet.top(heads, k=2), "attn_z")])
    assert point.ranked.chosen == pytest.approx(expected.chosen) and len(point.random) == 1
    with pytest.raises(InputError, match=r"\[2, 48\], got \[2, 4\]"):
        ablation_curve(tiny, pairs, heads)


def test_the_relative_drop_of_hand_made_scores():
    def scores(*margins):
        ids = tuple("abcd")
        return Scores(ids, np.array(margins), np.zeros(4), ids, ("",) * 4)

    clean, ablated = scores(1.0, 1.0, 1.0, -1.0), scores(1.0, -1.0, 0.0, 1.0)  # accuracy 0.75 and 0.625
    drop = ablated.relative_drop(clean)
    assert drop.value == pytest.approx((0.75 - 0.625) / 0.75) and drop.low <= drop.value <= drop.high
    assert clean.relative_drop(scores(-1.0, -1.0, -1.0, -1.0)).value == 0  # of nothing, nothing can be lost
