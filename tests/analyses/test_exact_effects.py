"""Exact effects of single neurons, the ablations behind them, and how attribution agrees with them."""

from typing import Any

import numpy as np
import pytest
import torch
from helpers.short_pairs import embedded_pairs

from tl_reward.analyses.attribution import attribute
from tl_reward.analyses.discovery import discover
from tl_reward.analyses.exact_effects import compare_with_exact, neuron_effects, set_effects
from tl_reward.data.batches.padding import batches
from tl_reward.data.readers import load_pairs
from tl_reward.errors import InputError
from tl_reward.interventions.ablations import MeanAblation, ResampleAblation, ScaleAblation, ZeroAblation
from tl_reward.measures.agreement import measure_agreement, sample_neurons
from tl_reward.neurons import NeuronSet
from tl_reward.running.activations import sample_activations
from tl_reward.running.batches.batching import encode_for
from tl_reward.running.scoring import score
from tl_reward.sites import Site

PAIRS = embedded_pairs("find", 4)
NEURONS = NeuronSet([(0, 3), (0, 11), (1, 7), (1, 30), (1, 40)])


@pytest.fixture(scope="module")
def mean(tiny):
    return discover(tiny, PAIRS).ranking("mean", "mlp_post")


@pytest.fixture(scope="module")
def bank(tiny):
    return sample_activations(tiny, PAIRS, "mlp_post", count=16)


@pytest.mark.parametrize("kind", ["zero", "mean", "resample", "halve"])
def test_an_effect_is_the_clean_reward_minus_that_of_the_ablated_model(tiny, mean, bank, kind):
    found = neuron_effects(tiny, PAIRS, NEURONS, kind=kind, mean=mean, bank=bank)
    clean = score(tiny, PAIRS)
    for i, place in enumerate(NEURONS):
        one = NeuronSet([place])
        edit = {
            "zero": ZeroAblation(one),
            "mean": MeanAblation(one, mean),
            "resample": ResampleAblation(one, bank),
            "halve": ScaleAblation(one, 0.5),
        }[kind]
        ablated = score(tiny, PAIRS, interventions=[edit])
        assert found.chosen[i] == pytest.approx(clean.chosen - ablated.chosen, abs=1e-5)
        assert found.margin[i] == pytest.approx(clean.margin - ablated.margin, abs=1e-5)
        assert found.mean_margin()[i].value == pytest.approx((clean.margin - ablated.margin).mean(), abs=1e-5)
        assert found.accuracy()[i].value == pytest.approx(clean.accuracy().value - ablated.accuracy().value)
    assert abs(found.margin).max() > 1e-3
    sizes = [abs(entry["margin"]["value"]) for entry in found.to_json()]
    assert sizes == sorted(sizes, reverse=True)


def test_ablated_activations_are_what_they_say(tiny, mean, bank):
    tokens = torch.tensor([encode_for(tiny, PAIRS).rows[0].ids])
    name, seen = Site(1, "mlp_post").hook_name, {}

    def run(*edits):
        (batch,) = batches(encode_for(tiny, PAIRS).rows[:1], max_tokens=10**6)
        hooks = [pair for edit in edits for pair in edit.hooks(batch)]
        with tiny.hooks(fwd_hooks=[*hooks, (name, lambda a, hook: seen.update(a=a.clone()))]):
            tiny(tokens)
        return seen["a"][0]

    clean, pair = run(), NeuronSet([(1, 7), (1, 30)])
    others = [i for i in range(48) if i not in (7, 30)]
    for edit, expected in (
        (ZeroAblation(pair), torch.zeros_like(clean[:, [7, 30]])),
        (ScaleAblation(pair, -2.0), -2 * clean[:, [7, 30]]),
        (MeanAblation(pair, mean), mean[1, [7, 30]].expand(len(clean), 2)),
    ):
        edited = run(edit)
        torch.testing.assert_close(edited[:, [7, 30]], expected)
        torch.testing.assert_close(edited[:, others], clean[:, others])
    drawn = run(ResampleAblation(pair, bank))[:, [7, 30]]
    rows = {tuple(row) for row in bank[:, 1, [7, 30]].tolist()}
    assert all(tuple(row) in rows for row in drawn.tolist())  # both neurons from one token
    assert len({tuple(row) for row in drawn.tolist()}) > 8
    assert (run(ResampleAblation(pair, bank, seed=1))[:, [7, 30]] != drawn).any()


def test_the_bank_holds_real_activations_drawn_from_all_transcripts(tiny):
    bank = sample_activations(tiny, PAIRS, "mlp_gate", count=200, seed=1)
    encoded = encode_for(tiny, PAIRS)
    every = []
    for row in encoded.rows:
        _, cache = tiny.run_with_cache(torch.tensor([row.ids]))
        every.append(torch.stack([cache[Site(layer, "mlp_gate").hook_name][0] for layer in range(2)], dim=1))
    distance = torch.cdist(bank.flatten(1), torch.cat(every).flatten(1), compute_mode="donot_use_mm_for_euclid_dist")
    assert distance.min(1).values.max() < 1e-3
    sources = torch.cat([torch.full((len(part),), i) for i, part in enumerate(every)])[distance.argmin(1)]
    assert len(sources.unique()) == len(encoded.rows)


def test_resampling_depends_on_neither_budget_nor_order(tiny, bank):
    edit = ResampleAblation(NEURONS, bank)
    one, other = score(tiny, PAIRS, interventions=[edit]), score(tiny, PAIRS[::-1], interventions=[edit], max_tokens=1400)
    assert one.chosen == pytest.approx(other.chosen[::-1], abs=1e-5)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_integrated_gradients_add_up_to_what_all_neurons_do(name):
    from helpers.architectures import hf_model

    from tl_reward.model.reward_model import HookedRewardModel
    from tl_reward.model.tiny import byte_tokenizer

    model = HookedRewardModel.from_hf(hf_model(name), byte_tokenizer())
    all_neurons = NeuronSet((layer, neuron) for layer in range(model.cfg.n_layers) for neuron in range(int(model.cfg.d_mlp or 0)))
    lost = (
        score(model, PAIRS, max_length=512).margin - score(model, PAIRS, interventions=[ZeroAblation(all_neurons)], max_length=512).margin
    )
    found = attribute(model, PAIRS, steps=16, max_length=512)
    single = attribute(model, PAIRS, max_length=512)
    assert found.effect.sum().item() == pytest.approx(lost.mean(), rel=0.05, abs=0.01)
    assert abs(single.effect.sum().item() - lost.mean()) > abs(found.effect.sum().item() - lost.mean())


def test_attribution_agrees_with_exact_ablation_on_a_model_that_is_nearly_linear(tiny):
    estimated = attribute(tiny, PAIRS).effect.numpy()
    sample = sample_neurons({"gradient": estimated}, top=10, random=14)
    assert len(sample.top) == 10 and len(sample.random) == 14
    neurons = sample.top | sample.random
    exact = neuron_effects(tiny, PAIRS, neurons).margin.mean(1)
    found = measure_agreement(np.array([estimated[place] for place in neurons]), exact)
    assert found.n == len(neurons)
    assert found.spearman.low <= found.spearman.value <= found.spearman.high
    assert found.spearman.value > 0.5


def test_agreement_of_hand_made_effects():
    exact = np.array([4.0, -3.0, 2.0, -1.0, 0.5, 0.25, -0.2, 0.1])
    found = measure_agreement(-exact, exact)
    assert (found.spearman.value, found.pearson.value, found.sign.value) == pytest.approx((-1, -1, 0))
    assert found.precision[2].value == 1  # the same neurons are large
    assert np.isnan(measure_agreement(np.zeros(8), exact).spearman.value)
    swapped = exact[[7, 6, 2, 3, 4, 5, 1, 0]]
    assert measure_agreement(swapped, exact).precision[2].value == 0


def test_what_an_ablation_lacks_is_named(tiny, mean, bank):
    with pytest.raises(InputError, match="needs the neurons' means"):
        neuron_effects(tiny, PAIRS, NEURONS, kind="mean")
    with pytest.raises(InputError, match="needs activations to draw from"):
        neuron_effects(tiny, PAIRS, NEURONS, kind="resample")
    with pytest.raises(InputError, match="zero, mean, resample, halve, got 'none'"):
        neuron_effects(tiny, PAIRS, NEURONS, kind="none")
    with pytest.raises(InputError, match="must not be empty"):
        neuron_effects(tiny, PAIRS, NeuronSet())
    with pytest.raises(InputError, match=r"neuron must be in \[0, 48\), got 48"):
        neuron_effects(tiny, PAIRS, NeuronSet([(0, 48)]))
    with pytest.raises(InputError, match=r"\[0, 48\), got 48"):
        MeanAblation(NeuronSet([(0, 48)]), mean)
    with pytest.raises(InputError, match="steps must be at least 1, got 0"):
        attribute(tiny, PAIRS, steps=0)
    with pytest.raises(InputError, match=r"shape \[2, 48\], got \[3, 48\]"):
        attribute(tiny, PAIRS, baseline=torch.zeros(3, 48))
    with pytest.raises(InputError, match="at least 3 neurons"):
        measure_agreement(np.ones(2), np.ones(2))
    with pytest.raises(InputError, match="the same neurons"):
        measure_agreement(np.ones(4), np.ones(5))
    with pytest.raises(InputError, match=r"must be in \[0, 96\], got 97 and 10"):
        sample_neurons({"one": np.zeros((2, 48))}, top=97, random=10)
    with pytest.raises(InputError, match=r"one shape, got \(2, 48\), \(3, 4\)"):
        sample_neurons({"one": np.zeros((2, 48)), "other": np.zeros((3, 4))}, top=1, random=3)


def test_heads_are_ablated_like_neurons(tiny):
    heads = NeuronSet([(0, 1), (1, 3)])
    found = neuron_effects(tiny, PAIRS, heads, site="attn_z")
    clean = score(tiny, PAIRS)
    for i, (layer, head) in enumerate(heads):

        class Silence:
            def hooks(self, batch, layer=layer, head=head):
                def fn(activation, hook):
                    activation = activation.clone()
                    activation[:, :, head] = 0
                    return activation

                return [(f"blocks.{layer}.attn.hook_z", fn)]

        expected = clean.margin - score(tiny, PAIRS, interventions=[Silence()]).margin
        assert found.margin[i] == pytest.approx(expected, abs=1e-5)
    bank = sample_activations(tiny, PAIRS, "attn_z", count=8)
    assert bank.shape == (8, 2, 4, 8)
    options: list[dict[str, Any]] = [{"kind": "halve"}, {"kind": "resample", "bank": bank}, {"kind": "mean", "mean": bank.mean(0)}]
    for extra in options:
        assert abs(neuron_effects(tiny, PAIRS, heads, site="attn_z", **extra).margin).max() > 1e-4
    with pytest.raises(InputError, match=r"neuron must be in \[0, 4\), got 4"):
        neuron_effects(tiny, PAIRS, NeuronSet([(0, 4)]), site="attn_z")


def test_sets_and_objectives(tiny):
    pairs = [p for objective in ("helpful", "harmless") for p in load_pairs("embedded", split="find", objective=objective, limit=3)]
    sets = {"two": NeuronSet([(0, 3), (1, 7)]), "one": NeuronSet([(1, 30)])}
    found = set_effects(tiny, pairs, sets)
    clean = score(tiny, pairs)
    for i, neurons in enumerate(sets.values()):
        ablated = score(tiny, pairs, interventions=[ZeroAblation(neurons)])
        assert found.margin[i] == pytest.approx(clean.margin - ablated.margin, abs=1e-5)
    parts = found.by_objective()
    assert list(parts) == ["harmless", "helpful"]
    assert parts["helpful"].margin == pytest.approx(found.margin[:, :3]) and parts["harmless"].margin == pytest.approx(found.margin[:, 3:])
    (entry,) = [entry for entry in found.to_json() if entry["name"] == "two"]
    assert entry["neurons"] == [[0, 3], [1, 7]]
    assert entry["by_objective"]["helpful"]["value"] == pytest.approx(found.margin[0, :3].mean())
    with pytest.raises(InputError, match="must not be empty"):
        set_effects(tiny, pairs, {"none": NeuronSet()})


def test_a_comparison_names_the_method_that_agrees_best(tiny):
    effect = attribute(tiny, PAIRS).effect
    noise = torch.randn(effect.shape, generator=torch.Generator().manual_seed(0)) * effect.std()
    found = compare_with_exact(tiny, PAIRS, {"noise": noise, "gradient": effect}, top=6, random=20)
    assert found.best() == "gradient"
    assert found.agreement["gradient"].spearman.value > found.agreement["noise"].spearman.value
    assert found.agreement["noise"].n == len(found.effects.sets) >= 20
    assert found.agreement_drawn["noise"].n == found.drawn.sum() == 20
    top = [NeuronSet.top(value.abs(), k=6) for value in (noise, effect)]
    assert all(place in NeuronSet.parse(found.effects.sets) for each in top for place in each)
    with pytest.raises(InputError, match="estimates must have one shape, got none"):
        compare_with_exact(tiny, PAIRS, {})
