"""Sweeps: each condition gives what a run of its own gives, and shared layers run once."""

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pytest
import torch
from helpers.short_pairs import embedded_pairs

from tl_reward.data.batches.padding import batches
from tl_reward.errors import InputError
from tl_reward.interventions.ablations import ZeroAblation
from tl_reward.interventions.protocol import Hooks
from tl_reward.model.tiny import tiny_reward_model
from tl_reward.neurons import NeuronSet
from tl_reward.running.batches.batching import encode_for
from tl_reward.running.batches.budget import bytes_per_token, tokens_per_batch
from tl_reward.running.scoring import score, sweep

PAIRS = embedded_pairs("find", 3)


@dataclass(frozen=True)
class Scaled:
    """Somebody's own edit, at any hook point."""

    hook_name: str
    factor: float
    per_token: bool = False

    def hooks(self, batch):
        return [(self.hook_name, lambda activation, hook: self.factor * activation)]


def conditions_of(hooked, per_token):
    last = hooked.cfg.n_layers - 1
    places = [
        "hook_embed",
        *(["hook_pos_embed"] if "hook_pos_embed" in hooked.hook_dict else []),
        "blocks.0.hook_resid_pre",
        "blocks.1.attn.hook_z",
        f"blocks.{last}.mlp.hook_post",
        "ln_final.hook_normalized",
    ]
    places += ["hook_reward_tokens", "hook_reward"]
    zero = [[ZeroAblation(NeuronSet([(layer, 1), (last, 5)]))] for layer in range(last)]
    scaled = [[Scaled(place, 1.7, per_token)] for place in places]
    return [[], *zero, *scaled, [*scaled[2], *zero[0]]]


def one_by_one(hooked, encoded, condition):
    """The rewards by TransformerLens' own means, a transcript at a time."""
    rewards = []
    for batch in batches(encoded.rows, max_tokens=1):
        hooks = [pair for intervention in condition for pair in intervention.hooks(batch)]
        rewards.append((batch.row.item(), hooked.run_with_hooks(batch.tokens, fwd_hooks=hooks).item()))
    return np.array([reward for _, reward in sorted(rewards)])


@pytest.mark.parametrize(("per_token", "max_tokens"), [(True, 150), (True, 100_000), (False, 100_000)])
def test_a_sweep_gives_what_single_runs_give(hooked, per_token, max_tokens):
    """Packed, one condition at a time or all side by side; and one transcript a row."""
    conditions = conditions_of(hooked, per_token)
    encoded = encode_for(hooked, PAIRS, max_length=512)
    clean = one_by_one(hooked, encoded, [])[list(encoded.chosen)]
    for condition, swept in zip(conditions, sweep(hooked, encoded, conditions, max_tokens=max_tokens), strict=True):
        alone = one_by_one(hooked, encoded, condition)
        assert swept.chosen == pytest.approx(alone[list(encoded.chosen)], abs=1e-4), condition
        assert swept.rejected == pytest.approx(alone[list(encoded.rejected)], abs=1e-4), condition
        changed = abs(swept.chosen - clean).max() > 1e-4
        # A norm takes a factor on the embedding or on a head's output back, where it comes right after.
        assert changed == (len(condition) > 0) or hooked.blocks[0].output_norms().mlp is not None, condition


def test_layers_below_the_first_edit_run_once(hooked):
    last = hooked.cfg.n_layers - 1
    conditions = [[Scaled(f"blocks.{last}.hook_mlp_out", factor)] for factor in (0.0, 0.5, 2.0)]
    encoded = encode_for(hooked, PAIRS[:2], max_length=512)
    calls = dict.fromkeys(range(last + 1), 0)
    originals = [block.forward for block in hooked.blocks]

    def counted(layer):
        def forward(*args, **kwargs):
            calls[layer] += 1
            return originals[layer](*args, **kwargs)

        return forward

    for layer, block in enumerate(hooked.blocks):
        block.forward = counted(layer)
    try:
        sweep(hooked, encoded, conditions, max_tokens=10**5)
    finally:
        for block, original in zip(hooked.blocks, originals, strict=True):
            block.forward = original
    assert calls == {layer: 3 if layer == last else 1 for layer in range(last + 1)}


def test_a_users_hook_sees_one_transcript_a_row_and_a_stated_one_a_packed_batch(tiny):
    shapes = []

    @dataclass(frozen=True)
    class Look:
        per_token: bool

        def hooks(self, batch) -> Hooks:
            return [("blocks.0.mlp.hook_post", lambda a, hook: shapes.append((len(a), len(batch.row))))]

    score(tiny, PAIRS, interventions=[Look(False)])
    assert all(rows == transcripts for rows, transcripts in shapes)
    shapes.clear()
    score(tiny, PAIRS, interventions=[Look(True)])
    assert all(rows == 1 < transcripts for rows, transcripts in shapes)


def test_a_hook_on_the_pattern_changes_what_score_returns(tiny):
    clean = score(tiny, PAIRS).chosen
    assert abs(score(tiny, PAIRS, interventions=[Scaled("blocks.0.attn.hook_pattern", 0.0)]).chosen - clean).max() > 1e-3


@pytest.mark.parametrize("given", [{"max_tokens": 40}, {"max_memory_gb": 1e-6}])
def test_a_budget_below_one_transcript_names_the_smallest_that_would_do(tiny, given):
    with pytest.raises(InputError, match=r"must be at least [\d.e-]+, .*longest transcript") as refused:
        score(tiny, PAIRS, **given)
    least = float(str(refused.value).split("at least ")[1].split(",")[0])
    (name,) = given
    expected = score(tiny, PAIRS).chosen
    enough: Any = {name: int(least) if name == "max_tokens" else least}
    less: Any = {name: int(least) - 1 if name == "max_tokens" else 0.98 * least}
    assert score(tiny, PAIRS, **enough).chosen == pytest.approx(expected, abs=1e-5)
    with pytest.raises(InputError, match="must be at least"):
        score(tiny, PAIRS, **less)


def test_the_budget_follows_memory_and_never_falls_below_the_longest_transcript(tiny):
    rows = encode_for(tiny, PAIRS).rows
    longest = max(len(row.ids) for row in rows)
    assert tokens_per_batch(tiny, longest) == 1024
    assert tokens_per_batch(tiny, longest, max_tokens=5000) == 5000
    assert tokens_per_batch(tiny, longest, max_memory_gb=500 * bytes_per_token(tiny, longest) / 2**30) == 500
    assert tokens_per_batch(tiny, 1500) == 1500 > longest
    assert bytes_per_token(tiny, longest, gradients=True) == 2 * bytes_per_token(tiny, longest)
    assert bytes_per_token(tiny, longest, scores=True) - bytes_per_token(tiny, longest) == 4 * 4 * longest * 4


@dataclass(frozen=True)
class InPlace:
    """An edit in place, as many write it."""

    hook_name: str
    per_token: bool = True

    def hooks(self, batch) -> Hooks:
        def fn(activation, hook):
            activation[..., :8] = 0

        return [(self.hook_name, fn)]


@pytest.mark.parametrize("max_tokens", [150, 100_000])
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_an_edit_in_place_reaches_no_other_condition(name, max_tokens):
    from helpers.architectures import hf_model

    from tl_reward.model.reward_model import HookedRewardModel
    from tl_reward.model.tiny import byte_tokenizer

    model = HookedRewardModel.from_hf(hf_model(name), byte_tokenizer())
    places = ["blocks.1.hook_resid_pre", "hook_embed", "hook_pos_embed" if name == "gpt2" else "blocks.0.hook_resid_pre"]
    conditions = [[InPlace(place)] for place in places] + [[Scaled("blocks.1.hook_mlp_out", 0.5, True)], []]
    encoded = encode_for(model, PAIRS, max_length=512)
    for condition, swept in zip(conditions, sweep(model, encoded, conditions, max_tokens=max_tokens), strict=True):
        assert swept.chosen == pytest.approx(one_by_one(model, encoded, condition)[list(encoded.chosen)], abs=1e-4), condition


def test_a_users_own_hook_in_place_acts_once_in_every_condition(tiny):
    model = tiny_reward_model()
    ((place, fn),) = InPlace("blocks.1.hook_resid_pre").hooks(None)
    model.add_hook(place, cast(Any, fn))
    encoded = encode_for(model, PAIRS)
    conditions = [[Scaled("blocks.1.hook_mlp_out", 0.5)], [Scaled("blocks.1.hook_mlp_out", 2.0)], []]
    for condition, swept in zip(conditions, sweep(model, encoded, conditions), strict=True):
        assert swept.chosen == pytest.approx(one_by_one(model, encoded, condition)[list(encoded.chosen)], abs=1e-4)


@pytest.mark.parametrize("place", ["hook_attn_scores", "hook_pattern"])
def test_an_edit_inside_attention_cannot_promise_to_be_per_token(tiny, place):
    with pytest.raises(InputError, match="per_token must be False"):
        score(tiny, PAIRS, interventions=[Scaled(f"blocks.0.attn.{place}", 0.0, per_token=True)])
    assert not any(point.fwd_hooks for point in tiny.hook_points())


def test_an_exception_in_a_branch_leaves_no_hook(tiny):
    @dataclass(frozen=True)
    class Fail:
        def hooks(self, batch) -> Hooks:
            def fn(activation, hook):
                raise RuntimeError("from the hook")

            return [("blocks.1.hook_mlp_out", fn)]

    with pytest.raises(InputError, match=r"blocks.1.hook_mlp_out: RuntimeError at test_sweep.py:\d+: from the hook"):
        sweep(tiny, PAIRS, [[], [Scaled("blocks.0.hook_mlp_out", 0.5)], [Fail()]])
    assert not any(point._forward_hooks for point in tiny.hook_points())


def test_a_bfloat16_models_rewards_are_near_the_float32_ones(tiny):
    half = score(tiny_reward_model().to(torch.bfloat16), PAIRS)
    full = score(tiny, PAIRS)
    assert abs(half.chosen - full.chosen).max() < 0.05 * abs(full.chosen).max()
