"""Sweeps in half precision: used where they are faster and agree, and else not; what was used is said."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tl_reward.analyses.ablation_curves import ablate_sets, ablation_curve
from tl_reward.data.readers import load_pairs
from tl_reward.errors import InputError
from tl_reward.interventions.ablations import ZeroAblation
from tl_reward.interventions.patches import Patch, Source
from tl_reward.measures.agreement import Precision, compare_margins
from tl_reward.model.tiny import tiny_reward_model
from tl_reward.neurons import NeuronSet
from tl_reward.running import half_precision
from tl_reward.running.batches.batching import encode_for
from tl_reward.running.half_precision import sweep_in_half
from tl_reward.running.scoring import score, sweep

PAIRS = load_pairs("embedded", split="test", limit=6)
CONDITIONS = [[ZeroAblation(NeuronSet([(0, i), (1, 3 * i)]))] for i in range(4)]


@pytest.fixture
def faster(monkeypatch):
    """A device that multiplies half precision twice as fast, whatever this one does."""
    monkeypatch.setattr(half_precision, "product_gain", lambda model: 2.0)


def margins(found):
    return np.array([scores.margin for scores in found])


def test_half_precision_where_it_is_faster_and_agrees(tiny, faster, capsys):
    exact = margins(sweep(tiny, PAIRS, CONDITIONS))
    found, precision = sweep_in_half(tiny, PAIRS, CONDITIONS)
    assert (precision.dtype, precision.own, precision.asked) == ("bfloat16", "float32", True)
    assert precision.margins == 3 * len(PAIRS)  # three conditions on these few pairs
    expected = margins(sweep(tiny_reward_model().to(torch.bfloat16, print_details=False), PAIRS, CONDITIONS))
    assert margins(found) == pytest.approx(expected) and margins(found) != pytest.approx(exact)
    differ = (margins(found) - exact)[[0, 2, 3]]  # the first, the middle and the last one
    assert precision.largest == pytest.approx(np.abs(differ).max())
    assert precision.error == pytest.approx((np.sqrt((differ**2).mean(1)) / exact[[0, 2, 3]].std(1)).max())
    assert capsys.readouterr().out == ""  # TransformerLens would tell of the copy's new type
    assert tiny.cfg.dtype == torch.float32 and {p.dtype for p in tiny.parameters()} == {torch.float32}  # the model is as it was


def test_the_models_own_precision_where_margins_do_not_agree(tiny, faster, monkeypatch, capsys):
    monkeypatch.setattr("tl_reward.measures.agreement.MOST_ERROR", 1e-9)
    found, precision = sweep_in_half(tiny, PAIRS, CONDITIONS, progress="sets")
    np.testing.assert_array_equal(margins(found), margins(sweep(tiny, PAIRS, CONDITIONS)))
    assert precision.dtype == precision.own == "float32" and precision.margins > 0 and precision.error is not None
    said = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in said] == ["sets, in bfloat16", "sets, 6 pairs in float32 to compare", "sets"]


@pytest.mark.parametrize("reason", ["no faster", "half already", "a hook of the user's"])
def test_the_models_own_precision_without_a_comparison(reason, monkeypatch):
    model = tiny_reward_model()
    monkeypatch.setattr(half_precision, "product_gain", lambda model: 1.0 if reason == "no faster" else 2.0)
    if reason == "half already":
        model = model.to(torch.bfloat16)
    if reason == "a hook of the user's":
        model.blocks[0].register_forward_hook(lambda *args: None)
    found, precision = sweep_in_half(model, PAIRS, CONDITIONS[:1])
    assert precision.dtype == precision.own and precision.asked and precision.margins == 0
    np.testing.assert_array_equal(margins(found), margins(sweep(model, PAIRS, CONDITIONS[:1])))


def test_pairs_that_were_encoded_otherwise_are_compared_as_they_are(tiny, faster):
    """Some are cut short by `max_length`; in the comparison they have to be so too."""
    encoded = encode_for(tiny, PAIRS, max_length=120, overlong="left")
    _, precision = sweep_in_half(tiny, encoded, CONDITIONS[:1])
    half = sweep(tiny_reward_model().to(torch.bfloat16), encoded, CONDITIONS[:1])[0].margin
    assert precision.dtype == "bfloat16"
    assert precision.largest == pytest.approx(np.abs(half - sweep(tiny, encoded, CONDITIONS[:1])[0].margin).max())


def test_no_condition(tiny, faster):
    assert sweep_in_half(tiny, PAIRS, []).scores == []


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


def test_the_models_own_precision_under_edits_of_the_options(tiny, faster):
    """A patch's source runs under the edits that come before it; on a copy it would not."""
    edits = [ZeroAblation(NeuronSet([(0, i) for i in range(4)]))]
    conditions = [[Patch(Source(tiny), NeuronSet([(1, 2)]), within_pair=True)]]
    found, precision = sweep_in_half(tiny, PAIRS, conditions, interventions=edits)
    np.testing.assert_array_equal(margins(found), margins(sweep(tiny, PAIRS, conditions, interventions=edits)))
    assert precision.dtype == "float32"


def test_sets_in_half_precision_beside_clean_scores_that_are_at_hand(tiny, faster):
    sets = {"a": NeuronSet([(0, 3), (1, 7), (1, 9)]), "empty": NeuronSet()}
    clean = score(tiny, PAIRS)
    found = ablate_sets(tiny, PAIRS, sets, draws=2, half=True)
    given = ablate_sets(tiny, PAIRS, sets, draws=2, half=True, clean=clean)
    np.testing.assert_array_equal(found.clean.chosen, clean.chosen)
    assert given.clean.chosen is clean.chosen and given.reading == found.reading and given.reading is not None
    assert found.precision is not None and found.precision.dtype == "bfloat16" and found.precision == given.precision
    for each in (found, given):
        expected = sweep(tiny_reward_model().to(torch.bfloat16), PAIRS, [[ZeroAblation(sets["a"])]])[0]
        assert each.sets["a"].ranked.margin == pytest.approx(expected.margin)
    np.testing.assert_array_equal(found.sets["a"].random[1].margin, given.sets["a"].random[1].margin)


def test_clean_scores_at_hand_change_nothing_without_half_precision(tiny):
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
