"""Statistics: hand-computed numbers, and streaming against everything in memory at once."""

from typing import Any, cast

import pytest
import torch
from helpers.architectures import ARCHITECTURES, hf_model
from helpers.short_pairs import embedded_pairs
from torch import Tensor

from tl_reward.analyses.discovery import discover
from tl_reward.data.text import render
from tl_reward.errors import InputError
from tl_reward.measures.neuron_statistics import NeuronStatistics, StatisticName
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.model.tiny import byte_tokenizer, tiny_reward_model
from tl_reward.sites import Site, SiteKind

PAIRS = embedded_pairs("find", 5)


def test_hand_computed_statistics():
    # One layer, two neurons, three tokens: two of a chosen transcript, one of a rejected one.
    activation = torch.tensor([[1.0, -2.0], [3.0, 0.0], [5.0, -1.0]])
    base = torch.tensor([[1.0, 0.0], [0.0, 0.0], [5.0, 3.0]])
    weight = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    stats = NeuronStatistics(n_layers=1, n_units=2)
    stats.count(weight[None])
    averages = torch.tensor([[0.5, 0.5, 0.0]])
    assert stats.update(0, activation, weight[None], base, averages).tolist() == [[2.0, -1.0]]
    expected: dict[StatisticName, list[list[float]]] = {
        "mean": [[2.0, -1.0], [5.0, -1.0]],
        "abs_mean": [[2.0, 1.0], [5.0, 1.0]],
        "rms": [[5**0.5, 2**0.5], [5.0, 1.0]],
        "probability": [[1.0, 0.0], [1.0, 0.0]],
        "change": [[4.5**0.5, 2**0.5], [0.0, 4.0]],
        "change_ms": [[4.5, 2.0], [0.0, 16.0]],
    }
    for name, values in expected.items():
        torch.testing.assert_close(stats.by_side(name)[:, 0], torch.tensor(values))
    torch.testing.assert_close(stats.value("mean"), torch.tensor([[3.5, -1.0]]))  # the sides count alike, whatever their length


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_streaming_equals_everything_in_memory(name):
    model = HookedRewardModel.from_hf(hf_model(name), byte_tokenizer())
    base = HookedRewardModel.from_hf(hf_model(name), byte_tokenizer())
    for parameter in base.parameters():
        parameter.data *= 0.9
    found = discover(model, PAIRS, base=base, max_tokens=120)
    tokenizer = model.tokenizer
    assert tokenizer is not None
    layers: dict[SiteKind, int] = {"mlp_post": 2, "mlp_gate": 2, "attn_z": 1}
    hooks = {kind: Site(layer, kind).hook_name for kind, layer in layers.items()}
    for side, label in enumerate(("chosen", "rejected")):
        texts = [render(getattr(pair, label), tokenizer).text for pair in PAIRS]
        ours, theirs = ([m.run_with_cache(text, names_filter=[*hooks.values()])[1] for text in texts] for m in (model, base))

        def all_at(caches, kind: SiteKind) -> Tensor:
            return torch.cat([cache[hooks[kind]][0] for cache in caches])

        for kind in ("mlp_post", "mlp_gate"):
            mine, other = all_at(ours, kind), all_at(theirs, kind)
            naive: dict[StatisticName, Tensor] = {
                "mean": mine.mean(0),
                "abs_mean": mine.abs().mean(0),
                "rms": mine.square().mean(0).sqrt(),
                "probability": (mine > 0).float().mean(0),
                "change": (mine - other).square().mean(0).sqrt(),
                "change_ms": (mine - other).square().mean(0),
            }
            for statistic, value in naive.items():
                # An activation within float error of 0 may count as firing on one path and not on the other: one token of all.
                atol = 1.01 / len(mine) if statistic == "probability" else 1e-5
                torch.testing.assert_close(found.by_side[kind, statistic][side, 2], value, atol=atol, rtol=1e-4)
        mine, other = all_at(ours, "attn_z"), all_at(theirs, "attn_z")
        heads: dict[StatisticName, Tensor] = {"norm": mine.norm(dim=2).mean(0), "change": (mine - other).square().sum(2).mean(0).sqrt()}
        for statistic, value in heads.items():
            torch.testing.assert_close(found.by_side["attn_z", statistic][side, 1], value, atol=1e-5, rtol=1e-4)


def test_gate_and_post_differ_with_a_gate_and_agree_without():
    gated = discover(HookedRewardModel.from_hf(hf_model("llama"), byte_tokenizer()), PAIRS)
    plain = discover(HookedRewardModel.from_hf(hf_model("gpt2"), byte_tokenizer()), PAIRS)
    assert (gated.ranking("mean", "mlp_post") - gated.ranking("mean", "mlp_gate")).abs().max() > 1e-2
    torch.testing.assert_close(plain.ranking("mean", "mlp_post"), plain.ranking("mean", "mlp_gate"))


def test_order_and_budget_do_not_matter(tiny):
    a, b = discover(tiny, PAIRS, max_tokens=300), discover(tiny, PAIRS[::-1])
    for key, value in a.by_side.items():
        torch.testing.assert_close(value, b.by_side[key], atol=1e-5, rtol=1e-5)
    assert a.tokens == b.tokens > 0


def test_a_hook_on_the_base_model_sees_one_transcript_a_row(tiny):
    base, rows = tiny_reward_model(seed=1), []
    base.add_hook("blocks.0.hook_resid_pre", cast(Any, lambda a, hook: rows.append(len(a))))
    discover(tiny, PAIRS, base=base)
    assert sum(rows) == 2 * len(PAIRS)


def test_a_site_given_twice_counts_once(tiny):
    base = tiny_reward_model(seed=1)
    once, twice = discover(tiny, PAIRS, base=base, sites=["mlp_post"]), discover(tiny, PAIRS, base=base, sites=["mlp_post", "mlp_post"])
    assert once.tokens == twice.tokens
    torch.testing.assert_close(once.ranking("change"), twice.ranking("change"))


def test_a_bfloat16_model_has_float32_statistics_near_the_float32_models():
    full = discover(tiny_reward_model(), PAIRS)
    half = discover(tiny_reward_model().to(torch.bfloat16), PAIRS)
    assert half.by_side["mlp_post", "mean"].dtype == torch.float32
    assert (full.ranking("rms") - half.ranking("rms")).abs().max() < 0.05 * full.ranking("rms").max()


def test_change_without_a_base_and_unknown_names_are_refused(tiny):
    found = discover(tiny, PAIRS[:1], sites=["mlp_post"])
    with pytest.raises(InputError, match="needs a base model"):
        found.ranking("change")
    with pytest.raises(InputError, match="'mean' at 'mlp_gate'; statistics there: none"):
        found.ranking("mean", "mlp_gate")
    with pytest.raises(InputError, match="score must be one of mean"):
        found.ranking(cast(Any, "loudness"))
    with pytest.raises(InputError, match="mlp_post, mlp_gate, attn_z, got 'resid_pre'"):
        discover(tiny, PAIRS[:1], sites=cast(Any, ["resid_pre"]))
