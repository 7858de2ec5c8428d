"""The reward lens: what the head reads before each layer and at each token."""

import numpy as np
import pytest
import torch

from tl_reward.analyses.reward_lens import TokenCurves, decided, reward_lens
from tl_reward.data.readers import load_pairs
from tl_reward.data.text import token_texts
from tl_reward.model.tiny import byte_tokenizer
from tl_reward.running.batches.batching import encode_for
from tl_reward.running.scoring import score
from tl_reward.sites import Site

PAIRS = load_pairs("embedded", split="find", limit=4)


def test_every_depth_is_the_head_on_that_residual_stream(hooked):
    found = reward_lens(hooked, PAIRS, max_length=512)
    encoded, rewards = encode_for(hooked, PAIRS, max_length=512), score(hooked, PAIRS, max_length=512)
    assert found.scores[-1].chosen == pytest.approx(rewards.chosen, abs=1e-4)
    assert found.scores[-1].rejected == pytest.approx(rewards.rejected, abs=1e-4)
    assert len(found.scores) == hooked.cfg.n_layers + 1
    for pair in range(len(PAIRS)):
        tokens = torch.tensor([encoded.rows[encoded.chosen[pair]].ids])
        tokenwise, cache = hooked.run_with_cache(tokens, return_type="reward_tokens")
        for depth, scores in enumerate(found.scores):
            site = Site(0, "resid_pre") if depth == 0 else Site(depth - 1, "resid_post")
            expected = hooked.unembed(hooked.ln_final(cache[site.hook_name]))[0, -1, 0].item()
            assert scores.chosen[pair] == pytest.approx(expected, abs=1e-4)
        torch.testing.assert_close(found.curves[pair].chosen, tokenwise[0], atol=1e-4, rtol=0)
        assert found.curves[pair].chosen_ids == encoded.rows[encoded.chosen[pair]].ids


def test_before_the_first_layer_transcripts_that_end_alike_tie(tiny):
    alike = [p for p in load_pairs("embedded", split="find") if p.chosen[-1].content[-1] == p.rejected[-1].content[-1]]
    assert len(alike) > 5
    for budget in (None, 800):
        assert (reward_lens(tiny, alike, max_tokens=budget).scores[0].margin == 0).all()


def test_order_and_budget_do_not_matter(tiny):
    one, other = reward_lens(tiny, PAIRS), reward_lens(tiny, PAIRS[::-1], max_tokens=800)
    assert one.margins() == pytest.approx(other.margins()[:, ::-1], abs=1e-5)
    assert one.to_json()["decided_at_token"] == other.to_json()["decided_at_token"][::-1]


def test_decided_of_hand_made_margins():
    margins = np.array([[0.0, 1e-6, -1.0, 1.0], [1.0, -1.0, 1.0, 1.0], [2.0, 1.0, 1.0, 0.0]])
    assert decided(margins).tolist() == [1, 2, 1, 2]
    curve = TokenCurves(torch.tensor([0.0, 1.0, 5.0]), torch.tensor([0.0, 2.0, 3.0, 6.0]), (1, 2, 3), (1, 2, 3, 4), shared=1)
    assert curve.margin().tolist() == [-1, 2, -1] and curve.decided_at() == 2


def test_the_summary_of_a_lens_holds_its_numbers(tiny):
    found = reward_lens(tiny, PAIRS)
    entry = found.to_json()
    assert entry["agreement"][-1]["value"] == 1 and entry["decided_at_depth"] == found.decided_at().tolist()
    assert entry["accuracy"][1]["value"] == found.scores[1].accuracy().value
    assert len(entry["tokens_after_prefix"]) == len(PAIRS) and min(entry["tokens_after_prefix"]) > 0


def test_a_character_over_several_tokens_is_there_once_and_whole():
    tokenizer = byte_tokenizer()
    text = "né 🙂!"
    texts = token_texts(tokenizer(text)["input_ids"], tokenizer)
    assert "".join(texts) == text and len(texts) == len(text.encode()) and "🙂" in texts and "é" in texts
    assert token_texts(tokenizer("🙂")["input_ids"][:2], tokenizer)[-1] != ""  # cut short: shown as what it is
