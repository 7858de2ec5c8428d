"""The embedded models, for real: parity with Hugging Face, decomposition, and the README's code."""

import re
from pathlib import Path

import pytest
import torch
from helpers.short_pairs import embedded_pairs
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import tl_reward
from tl_reward.analyses.direct_attribution import direct_attribution
from tl_reward.data.pairs import Objective, PreferencePair
from tl_reward.data.readers import load_pairs
from tl_reward.data.text import render
from tl_reward.interventions.patches import HeadPatch, Patch, Source, patch_between
from tl_reward.measures.overlap import OBJECTIVES
from tl_reward.model import embedded
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.results.store import Results
from tl_reward.running.scoring import score
from tl_reward.sites import Site

pytestmark = pytest.mark.real
PAIRS = load_pairs("embedded", split="test", objective="helpful", limit=3)
ROOT = Path(__file__).resolve().parents[2]
GUIDES = ("docs/how-to/python.md", "docs/how-to/repair.md", "docs/how-to/data.md")  # in this order, each with the names of those before


def _texts(tokenizer):
    return [render(side, tokenizer).text for pair in PAIRS for side in (pair.chosen, pair.rejected)]


@pytest.fixture(scope="module")
def mixed(real_base):
    return HookedRewardModel.from_pretrained("mixed", device="cpu")


def test_smollm2_with_a_fresh_head_equals_hugging_face(real_base):
    ours = HookedRewardModel.from_base(embedded.BASE, seed=3, device="cpu")
    theirs = AutoModelForSequenceClassification.from_pretrained(real_base, num_labels=1).eval()
    theirs.score.weight.data = torch.empty(1, 576).normal_(0, 0.02, generator=torch.Generator().manual_seed(3))
    tokenizer = AutoTokenizer.from_pretrained(real_base)
    tokenizer.chat_template = None
    texts = _texts(tokenizer)
    with torch.no_grad():
        one_by_one = torch.cat([theirs(**tokenizer(text, return_tensors="pt")).logits[:, 0] for text in texts])
    torch.testing.assert_close(ours(texts), one_by_one, atol=1e-4, rtol=0)
    assert ours.tokenizer is not None
    ours.tokenizer.padding_side = "left"
    torch.testing.assert_close(ours(texts), one_by_one, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", embedded.REWARD_MODELS)
def test_embedded_adapters_equal_peft(real_base, name):
    from peft import PeftModel

    theirs = AutoModelForSequenceClassification.from_pretrained(real_base, num_labels=1)
    theirs = PeftModel.from_pretrained(theirs, embedded.resolve(name)).eval()
    ours = HookedRewardModel.from_pretrained(name, device="cpu")
    assert ours.tokenizer is not None
    texts = _texts(ours.tokenizer)
    with torch.no_grad():
        expected = torch.cat([theirs(**ours.tokenizer(text, return_tensors="pt")).logits[:, 0] for text in texts])
    torch.testing.assert_close(ours(texts), expected, atol=1e-4, rtol=0)
    assert expected.std() > 0.1  # a trained head tells responses apart


def test_the_decomposed_residual_stream_sums_to_the_reward(mixed):
    text = _texts(mixed.tokenizer)[0]
    reward, cache = mixed.run_with_cache(text)
    parts = cache.decompose_resid(apply_ln=True, pos_slice=-1)
    torch.testing.assert_close((parts @ mixed.W_U[:, 0]).sum(0), reward, atol=1e-4, rtol=0)
    heads = cache.stack_head_results(apply_ln=True, pos_slice=-1) @ mixed.W_U[:, 0]
    attention = torch.stack([cache.apply_ln_to_stack(cache["attn_out", layer][:, -1], pos_slice=-1) for layer in range(30)])
    torch.testing.assert_close(heads.sum(0), (attention @ mixed.W_U[:, 0]).sum(0), atol=1e-4, rtol=0)


def test_direct_attribution_sums_to_the_reward(mixed):
    found, rewards = direct_attribution(mixed, PAIRS), score(mixed, PAIRS)
    total = found.neuron.sum((1, 2)) + found.head.sum((1, 2)) + found.embedding + found.bias
    assert total.tolist() == pytest.approx([rewards.chosen.mean(), rewards.rejected.mean()], abs=1e-4)
    assert found.largest_remainder < 1e-4


def test_patches_between_and_within_the_real_models(mixed):
    helpful = HookedRewardModel.from_pretrained("helpful", device="cpu")
    places = ["hook_embed", *(Site(layer, kind) for layer in range(30) for kind in ("attn_out", "mlp_out"))]
    everything = [Patch(patch_between(mixed, helpful), places), HeadPatch(helpful)]
    itself = [Patch(Source(mixed), places)]
    swap = [Patch(Source(mixed), [Site(29, "resid_post")], where="readout", within_pair=True)]
    clean, same, swapped = (score(mixed, PAIRS, interventions=edits) for edits in ([], itself, swap))
    patched, expected = score(mixed, PAIRS, interventions=everything), score(helpful, PAIRS)
    assert patched.chosen == pytest.approx(expected.chosen, abs=1e-4) and patched.rejected == pytest.approx(expected.rejected, abs=1e-4)
    assert same.margin == pytest.approx(clean.margin, abs=1e-5) and swapped.margin == pytest.approx(-clean.margin, abs=1e-4)


def test_saved_and_loaded_again_the_rewards_are_the_same(mixed, tmp_path):
    mixed.save_pretrained(tmp_path / "saved")
    again = HookedRewardModel.from_pretrained(tmp_path / "saved", device="cpu")
    assert score(again, PAIRS).chosen == pytest.approx(score(mixed, PAIRS).chosen, abs=1e-4)


def short_pairs(source: str, *, split: str, objective: Objective | None = None, limit: int | None = None) -> list[PreferencePair]:
    """In the place of `load_pairs`: as many as a guide asks for, cut short, and of a whole split some of each objective."""
    assert source == "embedded"
    if limit is not None:
        return embedded_pairs(split, limit, objective)
    return [pair for each in OBJECTIVES for pair in embedded_pairs(split, 24 if split == "find" else 12, each)]


def test_the_python_of_the_readme_and_the_guides_runs(real_base, tiny, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = "".join((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", *GUIDES))
    blocks = [block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "my.csv" not in block]  # see tests/test_readme.py
    assert len(blocks) == 9
    monkeypatch.setattr(tl_reward, "load_pairs", short_pairs)
    namespace: dict = {}
    for block in blocks:
        own = {"model": tiny} if "tl_reward.repair(" in block else {}  # dozens of runs; the real one would do the same
        exec(block, namespace | own if own else namespace)
    assert "->" in capsys.readouterr().out
    assert len(Results.load(tmp_path / "runs" / "mine").section("scores")) == 1
    total = namespace["contributions"].sum() + namespace["model"].b_U[0]
    torch.testing.assert_close(total, namespace["reward"][0], atol=1e-4, rtol=0)
