"""Ablation curves: exact sets, matched controls, and the model unharmed."""

import pytest
import torch

from tl_reward.ablation import ablation_curve
from tl_reward.discovery import discover
from tl_reward.errors import InputError
from tl_reward.interventions import ZeroAblation, random_like
from tl_reward.readers import load_pairs
from tl_reward.run import score
from tl_reward.sites import NeuronSet

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
    assert point.to_json()["random_accuracy"] == []


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
