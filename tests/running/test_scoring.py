"""Scoring and streaming: the same numbers whatever the batches, and no hook left behind."""

import pytest
import torch

from tl_reward.data.batches.padding import batches
from tl_reward.data.readers import load_pairs
from tl_reward.data.text import render
from tl_reward.errors import InputError
from tl_reward.interventions.ablations import ZeroAblation
from tl_reward.interventions.attaching import attached
from tl_reward.model.tiny import tiny_reward_model
from tl_reward.neurons import NeuronSet
from tl_reward.running.activations import side_weights, stream
from tl_reward.running.batches.batching import encode_for
from tl_reward.running.scoring import score
from tl_reward.sites import Site

PAIRS = load_pairs("embedded", split="find", limit=6)


def _hooks(model) -> int:
    return sum(len(point.fwd_hooks) for point in model.hook_points())


def test_scores_are_the_models_rewards_of_the_rendered_text(tiny):
    scores = score(tiny, PAIRS)
    for i, pair in enumerate(PAIRS):
        assert scores.chosen[i] == pytest.approx(tiny(render(pair.chosen, tiny.tokenizer).text).item(), abs=1e-5)
        assert scores.rejected[i] == pytest.approx(tiny(render(pair.rejected, tiny.tokenizer).text).item(), abs=1e-5)


def test_scores_do_not_depend_on_budget_or_order(tiny):
    whole, single = score(tiny, PAIRS), score(tiny, list(reversed(PAIRS)), max_tokens=1024)
    assert whole.chosen == pytest.approx(single.chosen[::-1], abs=1e-5)
    assert whole.ids == single.ids[::-1]


def test_zero_ablation_equals_a_model_with_that_neurons_output_weights_at_zero(tiny):
    neurons = NeuronSet([(0, 3), (1, 7), (1, 8)])
    pruned = tiny_reward_model()
    for layer, neuron in neurons:
        pruned.blocks[layer].mlp.W_out.data[neuron] = 0
    expected = score(pruned, PAIRS).chosen
    for site in ("mlp_post", "mlp_gate"):
        assert score(tiny, PAIRS, interventions=[ZeroAblation(neurons, site)]).chosen == pytest.approx(expected, abs=1e-5)
    assert abs(score(tiny, PAIRS).chosen - expected).max() > 1e-3


def test_no_hook_stays_behind_after_an_exception(tiny):
    def fail(activation, hook):
        raise RuntimeError("from the hook")

    mine = ("hook_embed", lambda activation, hook: None)
    tiny.add_hook(*mine)
    clean = score(tiny, PAIRS).chosen
    with pytest.raises(RuntimeError, match="from the hook"), attached(tiny, [("blocks.0.hook_mlp_out", fail)]):
        tiny("\n\nHuman: Hi\n\nAssistant: Hello.")
    assert _hooks(tiny) == 1  # the user's own hook is not ours to remove
    tiny.reset_hooks()
    assert score(tiny, PAIRS).chosen == pytest.approx(clean)


@pytest.mark.parametrize(
    ("neurons", "message"), [([(9, 0)], r"layer must be in \[0, 2\), got 9"), ([(0, 48)], r"neuron must be in \[0, 48\), got 48")]
)
def test_neurons_out_of_range_are_refused_and_leave_no_hook(tiny, neurons, message):
    with pytest.raises(InputError, match=message):
        score(tiny, PAIRS, interventions=[ZeroAblation(NeuronSet(neurons))])
    assert _hooks(tiny) == 0


def test_a_reward_that_is_not_finite_names_the_model_and_the_pair():
    broken = tiny_reward_model()
    broken.unembed.W_U.data[0] = float("nan")
    with pytest.raises(InputError, match=rf"llama.*not finite.*{PAIRS[0].id}"):
        score(broken, PAIRS)


def test_an_activation_that_is_not_finite_names_the_site_and_the_pair():
    broken = tiny_reward_model()
    broken.blocks[1].mlp.W_in.data[0] = float("inf")
    with pytest.raises(InputError, match=rf"blocks.1.mlp.hook_post.*not finite.*{PAIRS[0].id}"):
        stream(broken, encode_for(broken, PAIRS), [Site(0, "mlp_post"), Site(1, "mlp_post")], lambda *_: None)


def test_side_weights_count_the_transcripts_that_a_token_stands_for(tiny):
    row = {"prompt": "Hi", "chosen": ["Hello there!", "Good day."], "rejected": ["No."]}
    from tl_reward.data.pairs import pairs_of_row

    encoded = encode_for(tiny, pairs_of_row(row, "a:1"))  # 2 pairs; the rejected transcript is one row, and counts twice
    (batch,) = batches(encoded.rows, max_tokens=10**6)
    weights = side_weights(encoded, batch)
    lengths = [len(encoded.rows[i].ids) for i in (*encoded.chosen, encoded.rejected[0])]
    assert weights.sum(2).tolist() == [[lengths[0] + lengths[1], 2 * lengths[2]]]


def test_a_base_of_another_shape_is_refused(tiny):
    from helpers.architectures import hf_model

    from tl_reward.model.reward_model import HookedRewardModel

    with pytest.raises(InputError, match=r"n_layers is 2 in .*, 3 in"):
        stream(tiny, encode_for(tiny, PAIRS), [], lambda *_: None, base=HookedRewardModel.from_hf(hf_model("llama")))


def test_a_model_without_tokenizer_and_a_length_over_the_context_are_refused(tiny):
    from tl_reward.model.reward_model import HookedRewardModel
    from tl_reward.model.tiny import tiny_hf_model

    with pytest.raises(InputError, match="no tokenizer"):
        score(HookedRewardModel.from_hf(tiny_hf_model()), PAIRS)
    with pytest.raises(InputError, match=r"\[1, 2048\], got 4096"):
        score(tiny, PAIRS, max_length=4096)


def test_streamed_activations_are_those_of_the_cache(tiny):
    encoded = encode_for(tiny, PAIRS[:1])
    seen = {}
    stream(tiny, encoded, [Site(1, "mlp_gate")], lambda site, a, batch, base: seen.update({site: (a, batch)}))
    activation, batch = seen[Site(1, "mlp_gate")]
    for row, spans in zip(batch.row.tolist(), batch.spans, strict=True):
        _, cache = tiny.run_with_cache(torch.tensor([encoded.rows[row].ids]))
        streamed = torch.cat([activation[start:end] for start, end in spans])
        torch.testing.assert_close(streamed, cache[Site(1, "mlp_gate").hook_name][0], atol=1e-4, rtol=1e-4)
