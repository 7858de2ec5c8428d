"""Products in half precision: used where they are faster and figures agree, and else not; what was used is said."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.architectures import hf_model
from helpers.several_outputs import with_outputs
from helpers.short_pairs import embedded_pairs

from tl_reward.analyses.ablation_curves import ablate_sets, ablation_curve
from tl_reward.analyses.attribution import attribute
from tl_reward.errors import InputError
from tl_reward.interventions.ablations import ZeroAblation
from tl_reward.measures import agreement
from tl_reward.measures.agreement import Precision, compare_figures, compare_margins
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.model.tiny import byte_tokenizer, tiny_reward_model
from tl_reward.neurons import NeuronSet
from tl_reward.running import half_precision
from tl_reward.running.batches.batching import encode_for
from tl_reward.running.half_precision import half_where_it_agrees, in_half, own_precision
from tl_reward.running.scoring import score, sweep

PAIRS = embedded_pairs("test", 6)
CONDITIONS = [[ZeroAblation(NeuronSet([(0, i), (1, 3 * i)]))] for i in range(4)]


@pytest.fixture
def faster(monkeypatch):
    """A device that multiplies half precision twice as fast, whatever this one does."""
    monkeypatch.setattr(half_precision, "product_gain", lambda model: 2.0)


def margins(found):
    return np.array([scores.margin for scores in found])


def test_products_in_half_precision_where_they_are_faster_and_agree(tiny, faster):
    half, precision = half_where_it_agrees(tiny, PAIRS, conditions=CONDITIONS[:3])
    assert (precision.dtype, precision.own, precision.asked, precision.margins) == ("bfloat16", "float32", True, 3 * len(PAIRS))
    exact, found = (margins(sweep(model, PAIRS, CONDITIONS[:3])) for model in (tiny, half))
    assert precision.largest == pytest.approx(np.abs(found - exact).max()) != 0
    assert precision.error == pytest.approx((np.sqrt(((found - exact) ** 2).mean(1)) / exact.std(1)).max())
    assert own_precision(half) == Precision("bfloat16", "float32") and own_precision(tiny) == Precision("float32", "float32")
    assert {p.dtype for p in tiny.parameters()} == {torch.float32}  # the model is as it was


def test_a_copy_with_products_in_half_precision_is_the_same_model(tmp_path):
    """As far as its files tell: a cast is no edit."""
    tiny_reward_model().save_pretrained(tmp_path / "model")
    model = HookedRewardModel.from_pretrained(tmp_path / "model")
    assert in_half(model).origin == model.origin and not model.origin.edited


def test_only_products_are_in_half_precision():
    """Each product is that of weights and activations rounded to bfloat16, and the residual stream is float32: better than all in half."""
    model = tiny_reward_model()
    half = in_half(model)
    kept = {name for name, weight in half.named_parameters() if weight.dtype == torch.float32}
    assert all("attn.W" not in name and "attn._W" not in name and "mlp.W" not in name for name in kept)
    assert {"embed.W_E", "unembed.W_U"} <= kept
    _, cache = half.run_with_cache("Hello there.")
    assert all(cache[f"blocks.{layer}.hook_resid_post"].dtype == torch.float32 for layer in range(2))
    normal = cache["blocks.0.ln2.hook_normalized"].bfloat16()
    expected = normal @ model.state_dict()["blocks.0.mlp.W_gate"].bfloat16()
    torch.testing.assert_close(cache["blocks.0.mlp.hook_pre"], expected, rtol=0.01, atol=1e-3)
    exact = score(model, PAIRS).margin
    whole = score(tiny_reward_model().to(torch.bfloat16, print_details=False), PAIRS).margin
    assert np.abs(score(half, PAIRS).margin - exact).max() < np.abs(whole - exact).max()


@pytest.mark.parametrize("name", ["gpt2", "gpt_neox", "gemma2", "olmo2", "qwen3"])
def test_products_in_half_precision_of_other_architectures(name):
    model = HookedRewardModel.from_hf(hf_model(name), byte_tokenizer())
    exact = score(model, PAIRS).margin
    assert np.abs(score(in_half(model), PAIRS).margin - exact).max() < 0.1 * exact.std()


@pytest.mark.parametrize("fault", ["margins", "figures"])
def test_the_model_itself_where_figures_do_not_agree(tiny, faster, monkeypatch, fault):
    def wrong(model, pairs):
        return np.arange(4.0) * (-1 if own_precision(model).dtype == "bfloat16" else 1)

    if fault == "margins":
        monkeypatch.setattr("tl_reward.measures.agreement.MOST_ERROR", 1e-9)
    model, precision = half_where_it_agrees(tiny, PAIRS, figures={"effects": wrong} if fault == "figures" else None)
    assert model is tiny and precision.dtype == precision.own == "float32" and precision.margins > 0 and precision.error is not None
    assert precision.figures == ({"effects": -1.0} if fault == "figures" else {})


def test_other_figures_that_agree(tiny, faster):
    model, precision = half_where_it_agrees(
        tiny, PAIRS, figures={"effects": lambda model, pairs: attribute(model, pairs).effect.numpy().ravel()}
    )
    assert model is not tiny and 0.99 < precision.figures["effects"] <= 1


@pytest.mark.parametrize("reason", ["no faster", "half already", "a hook of the user's"])
def test_the_model_itself_without_a_comparison(reason, monkeypatch):
    model = tiny_reward_model()
    monkeypatch.setattr(half_precision, "product_gain", lambda model: 1.0 if reason == "no faster" else 2.0)
    if reason == "half already":
        model = model.to(torch.bfloat16)
    if reason == "a hook of the user's":
        model.blocks[0].register_forward_hook(lambda *args: None)
    found, precision = half_where_it_agrees(model, PAIRS)
    assert found is model and precision.dtype == precision.own and precision.asked and precision.margins == 0


def test_pairs_that_were_encoded_otherwise_are_compared_as_they_are(tiny, faster):
    """Some are cut short by `max_length`; in the comparison they have to be so too."""
    encoded = encode_for(tiny, PAIRS, max_length=120, overlong="left")
    half, precision = half_where_it_agrees(tiny, encoded)
    assert precision.largest == pytest.approx(np.abs(score(half, encoded).margin - score(tiny, encoded).margin).max())


def test_how_fast_products_are_is_measured(tiny):
    assert 0.01 < half_precision.product_gain(tiny) < 100


def test_margins_that_agree_and_that_do_not():
    own, asked = np.linspace(-1, 1, 24)[None], Precision("float32", "float32", asked=True)
    assert compare_margins(own, own + 0.01 * (-1) ** np.arange(24), asked, "bfloat16").dtype == "bfloat16"
    assert compare_margins(own, own + 0.2 * (-1) ** np.arange(24), asked, "bfloat16").dtype == "float32"  # too far off
    one_away = own.copy()
    one_away[0, 12] += 0.5
    assert compare_margins(own, one_away, asked, "bfloat16").error == pytest.approx(0.5 / np.sqrt(24) / own.std())
    swapped = own * 1e-3 + np.repeat([-1.0, 1.0], 12)  # hardly any error, and the ranks of a half are the other way round
    found = compare_margins(swapped, np.concatenate([swapped[:, :12][:, ::-1], swapped[:, 12:]], axis=1), asked, "bfloat16")
    assert (found.error or 1) < 0.01 and (found.correlation or 1) < 0.95 and found.dtype == "float32"
    # Small margins that are wrong, beside large ones that are right.
    small = np.concatenate([own * 1e-2, own]), np.concatenate([own[:, ::-1] * 1e-2, own])
    assert compare_margins(*small, asked, "bfloat16").dtype == "float32"
    flat = compare_margins(np.zeros((1, 4)), np.zeros((1, 4)), asked, "bfloat16")  # nothing to compare by
    assert flat.dtype == "float32" and flat.error is None and flat.largest == 0


def test_figures_that_agree_and_that_do_not():
    own, found = np.linspace(-1, 1, 24), Precision("bfloat16", "float32", asked=True)
    near = compare_figures("effects", own, own + 0.01 * (-1) ** np.arange(24), found)
    assert near.dtype == "bfloat16" and near.figures["effects"] > 0.99
    for far in (own * 3, own[::-1], np.zeros(24)):
        assert compare_figures("effects", own, far, found).dtype == "float32"


def test_clean_scores_at_hand_change_nothing(tiny):
    ranking = torch.rand(2, 48, generator=torch.Generator().manual_seed(0))
    one = ablation_curve(tiny, PAIRS, ranking, fractions=(0.1,), draws=1)
    other = ablation_curve(tiny, PAIRS, ranking, fractions=(0.1,), draws=1, clean=score(tiny, PAIRS))
    assert one.to_json() == other.to_json() and one.precision == other.precision == Precision("float32", "float32")


def test_clean_scores_of_other_pairs_are_refused(tiny):
    with pytest.raises(InputError, match="clean must be the scores of these 6 pairs, in their order, got those of 5 others"):
        ablate_sets(tiny, PAIRS, {"a": NeuronSet([(0, 3)])}, clean=score(tiny, PAIRS[:5]))
    same_ids = [replace(pair, id=own.id) for pair, own in zip(reversed(PAIRS), PAIRS, strict=True)]
    with pytest.raises(InputError, match="clean must be the scores of these 6 pairs"):
        ablate_sets(tiny, PAIRS, {"a": NeuronSet([(0, 3)])}, clean=score(tiny, same_ids))


@pytest.mark.parametrize("own", [None, "helpfulness"])
def test_the_output_of_a_check_is_not_that_of_the_copy(faster, monkeypatch, own):
    """Score(copy) is of the output that score(model) is of, whichever one the check was asked to read."""
    monkeypatch.setattr(agreement, "MOST_ERROR", np.inf)
    monkeypatch.setattr(agreement, "LEAST_CORRELATION", -1)
    model = with_outputs()
    model.output = own
    half, precision = half_where_it_agrees(model, PAIRS, output="safety")
    assert precision.dtype == "bfloat16" and half is not model
    assert half.output == model.output == own
    if own:
        assert score(half, PAIRS[:2]).output == score(model, PAIRS[:2]).output == own
