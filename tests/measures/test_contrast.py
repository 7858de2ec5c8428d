"""Contrasts of chosen and rejected transcripts: hand-computed numbers, and scipy on everything in memory at once."""

from typing import Any, cast

import numpy as np
import pytest
import torch
from helpers.architectures import ARCHITECTURES, hf_model
from helpers.short_pairs import embedded_pairs
from scipy import stats

from tl_reward.analyses.discovery import discover
from tl_reward.errors import InputError
from tl_reward.measures.contrast import BINS, ContrastSums, bin_of
from tl_reward.measures.names import CONTRASTS
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.model.tiny import byte_tokenizer
from tl_reward.running.batches.batching import encode_for
from tl_reward.sites import Site, UnitSite

PAIRS = embedded_pairs("find", 8)


def sums_of(chosen: torch.Tensor, rejected: torch.Tensor) -> ContrastSums:
    """One layer; [transcript, neuron]."""
    count = len(chosen) + len(rejected)
    sides = torch.zeros(2, count, dtype=torch.bool)
    sides[0, : len(chosen)], sides[1, len(chosen) :] = True, True
    sums = ContrastSums(1, chosen.shape[1], sides)
    sums.begin(range(count))
    sums.update(0, torch.cat([chosen, rejected]))
    return sums


def test_hand_computed_contrast():
    # Chosen 1, 3 (mean 2, variance 2); rejected 0, 1, 2 (mean 1, variance 1); the second neuron is 5 everywhere.
    found = sums_of(torch.tensor([[1.0, 5], [3, 5]]), torch.tensor([[0.0, 5], [1, 5], [2, 5]])).result()
    assert found.difference[0].tolist() == [1, 0]
    assert found.welch_t[0].tolist() == pytest.approx([1 / (2 / 2 + 1 / 3) ** 0.5, 0])
    assert found.cohens_d[0].tolist() == pytest.approx([1 / ((1 * 2 + 2 * 1) / 3) ** 0.5, 0])
    assert found.auroc[0].tolist() == pytest.approx([(1.5 + 3) / 6, 0.5])  # 1 beats 0 and ties with 1; 3 beats all
    assert found.auroc_error[0].tolist() == pytest.approx([0.5 * (1 / 2) * (1 / 3), 0.5])
    assert found.p_value[0, 1] == 1 and found.q_value[0].tolist() == pytest.approx([min(1, 2 * found.p_value[0, 0].item()), 1])
    assert (found.chosen, found.rejected) == (2, 3)


def test_against_scipy_on_many_random_neurons():
    torch.manual_seed(0)
    chosen, rejected = torch.randn(40, 60) * 3 + 0.4, torch.randn(55, 60) - torch.linspace(-1, 1, 60)
    found = sums_of(chosen, rejected).result()
    welch: Any = stats.ttest_ind(chosen, rejected, equal_var=False)
    assert found.welch_t[0].numpy() == pytest.approx(welch.statistic, rel=1e-4)
    assert found.p_value[0].numpy() == pytest.approx(welch.pvalue, rel=1e-4)
    assert found.q_value[0].numpy() == pytest.approx(stats.false_discovery_control(welch.pvalue), rel=1e-4)
    exact = stats.mannwhitneyu(chosen, rejected).statistic / (len(chosen) * len(rejected))
    miss = np.abs(found.auroc[0].numpy() - exact)
    assert (miss <= found.auroc_error[0].numpy() + 1e-6).all()
    assert miss.max() < 0.01 and 0 < found.auroc_error.max() < 0.03


def test_bins_keep_the_order_of_numbers():
    values = torch.cat([torch.randn(500) * 10.0**k for k in range(-4, 3)]).sort().values
    bins = bin_of(values)
    assert (bins.diff() >= 0).all() and bins.min() >= 0 and bins.max() < BINS
    inside = values[(values.abs() > 2**-10) & (values.abs() < 2**6)]
    ends = inside[bin_of(inside).diff(prepend=torch.tensor([-1])) != 0]
    assert len(ends) > 300  # fine enough to tell 3,500 numbers apart
    assert bin_of(torch.tensor([-0.0, 0.0])).tolist() == [BINS // 2] * 2


@pytest.mark.parametrize(("name", "where"), [*((name, "response") for name in ARCHITECTURES), ("llama", "readout"), ("gpt2", "all")])
def test_streaming_equals_everything_in_memory(name, where):
    model = HookedRewardModel.from_hf(hf_model(name), byte_tokenizer())
    encoded = encode_for(model, PAIRS, max_length=512)
    found = discover(model, PAIRS, where=where, max_tokens=200, max_length=512)
    sides = [sorted(set(rows)) for rows in (encoded.chosen, encoded.rejected)]
    values: dict[UnitSite, list[torch.Tensor]] = {"mlp_post": [], "attn_z": []}
    for rows in sides:
        caches = [(encoded.rows[row], model.run_with_cache(torch.tensor([encoded.rows[row].ids]))[1]) for row in rows]
        start = {"readout": lambda row: -1, "response": lambda row: row.response_start, "all": lambda row: 0}[where]
        values["mlp_post"].append(torch.stack([c[Site(1, "mlp_post").hook_name][0, start(row) :].mean(0) for row, c in caches]))
        values["attn_z"].append(torch.stack([c[Site(1, "attn_z").hook_name][0, start(row) :].norm(dim=2).mean(0) for row, c in caches]))
    for site, (chosen, rejected) in values.items():
        contrast = found.contrast[site]
        naive = sums_of(chosen, rejected).result()
        torch.testing.assert_close(contrast.difference[1], naive.difference[0], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(contrast.welch_t[1], naive.welch_t[0], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(contrast.cohens_d[1], naive.cohens_d[0], atol=1e-5, rtol=1e-4)
        exact = stats.mannwhitneyu(chosen, rejected).statistic / (len(chosen) * len(rejected))
        assert (np.abs(contrast.auroc[1].numpy() - exact) <= contrast.auroc_error[1].numpy() + 1e-6).all()


def test_order_and_budget_do_not_matter(tiny):
    one, other = (discover(tiny, pairs, max_tokens=budget) for pairs, budget in ((PAIRS, None), (PAIRS[::-1], 800)))
    for site in ("mlp_gate", "attn_z"):
        for name in ("difference", "welch_t", "cohens_d", "auroc"):
            torch.testing.assert_close(one.contrast[site].ranking(name), other.contrast[site].ranking(name), atol=1e-4, rtol=1e-4)
    assert {("mlp_gate", "helpful"), ("mlp_post", "helpful")} <= one.firing.keys()
    for of, share in one.firing.items():
        torch.testing.assert_close(share, other.firing[of])


def test_a_neuron_that_never_changes_has_no_effect_and_nothing_is_nan(tiny):
    dead = type(tiny)(tiny.cfg, tiny.tokenizer)
    dead.load_state_dict(tiny.state_dict())
    dead.blocks[1].mlp.W_gate.data[:, 7] = 0  # act(0) * up = 0
    found = discover(dead, PAIRS).contrast["mlp_post"]
    for name in CONTRASTS:
        assert found.ranking(name)[1, 7] == 0
    assert found.p_value[1, 7] == 1
    assert all(value.isfinite().all() for value in found if isinstance(value, torch.Tensor))


def test_what_a_contrast_lacks_is_named(tiny):
    found = discover(tiny, PAIRS[:1])
    with pytest.raises(InputError, match="'auroc' at 'mlp_post': it needs two transcripts on each side"):
        found.ranking("auroc")
    with pytest.raises(InputError, match="two or more transcripts on each side, got 1 and 2"):
        ContrastSums(1, 2, torch.tensor([[True, False], [True, True]]))
    with pytest.raises(InputError, match="where must be one of readout, response, all, got 'prompt'"):
        discover(tiny, PAIRS, where=cast(Any, "prompt"))
