"""Activations of pairs as tensors: those of one transcript at a time, whatever the batches, the edits and the architecture."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.architectures import hf_model
from helpers.short_pairs import embedded_pairs
from model.test_head_layouts import gated, load, mlp, short_prompt_end, write

import tl_reward
from tl_reward.errors import InputError, OutOfMemory
from tl_reward.interventions.ablations import ScaleAblation, ZeroAblation
from tl_reward.interventions.from_functions import intervention
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.model.tiny import byte_tokenizer
from tl_reward.neurons import NeuronSet
from tl_reward.running import pair_activations
from tl_reward.running.batches.batching import encode_for
from tl_reward.running.pair_activations import activations
from tl_reward.running.scoring import score
from tl_reward.sites import Site, SiteKind

PAIRS = embedded_pairs("find", 5)
KINDS: list[SiteKind] = ["resid_pre", "resid_post", "attn_z", "attn_out", "mlp_gate", "mlp_post", "mlp_out"]
__all__ = ["short_prompt_end"]
EDITS = {"clean": [], "ablated": [ZeroAblation(NeuronSet([(0, 3), (1, 7)])), ScaleAblation(NeuronSet([(1, 2)]), 0.5, site="attn_z")]}
ANY: Any = activations  # called as the type checker would not have it


@pytest.fixture(scope="module", params=["llama", "gpt2", "gemma2"])
def model(request: pytest.FixtureRequest) -> HookedRewardModel:
    return HookedRewardModel.from_hf(hf_model(request.param), byte_tokenizer())


@pytest.mark.parametrize("where", ["readout", "response", "all"])
@pytest.mark.parametrize("edits", EDITS)
def test_they_are_those_of_one_transcript_at_a_time(where: Any, edits: str, model: HookedRewardModel):
    encoded = encode_for(model, PAIRS, max_length=500, overlong="left")
    found = activations(model, encoded, KINDS, where=where, interventions=EDITS[edits], max_tokens=1200)
    assert len(found.values) == len(KINDS) * 3 and all(each.dtype == torch.float32 for each in found.values.values())
    for i, rows in enumerate(zip(encoded.chosen, encoded.rejected, strict=True)):
        for side, row in enumerate(rows):
            ids, start = encoded.rows[row]
            tokens = torch.tensor([ids])
            hooks = []
            for edit in EDITS[edits]:
                (batch,) = batch_of(ids, start)
                hooks += edit.hooks(batch)
            with torch.no_grad(), model.hooks(hooks):
                reward: Any
                reward, cache = model.run_with_cache(tokens)
            assert [found.scores.chosen, found.scores.rejected][side][i] == pytest.approx(reward.item(), abs=1e-5)
            for site, values in found.values.items():
                whole = cache[site.hook_name][0]
                expected = {"readout": whole[-1], "response": whole[start:].mean(0), "all": whole.mean(0)}[where]
                torch.testing.assert_close(values[i, side], expected, atol=1e-5, rtol=1e-5)


def batch_of(ids: tuple[int, ...], start: int) -> list[Any]:
    from tl_reward.data.batches.padding import batches
    from tl_reward.data.encoding import Row

    return [*batches([Row(ids, start)], max_tokens=len(ids))]


def test_an_edit_that_is_not_per_token_runs_one_transcript_a_row(tiny):
    @tl_reward.intervention(Site(0, "mlp_out"))
    def centred(activation):
        return activation - activation.mean(-1, keepdim=True)

    @tl_reward.intervention(Site(0, "mlp_out"), per_token=True)
    def packed(activation):
        return activation - activation.mean(-1, keepdim=True)

    one, other = (activations(tiny, PAIRS, "resid_post", where="response", interventions=[edit]) for edit in (centred, packed))
    for site in one.values:
        torch.testing.assert_close(one[site], other[site], atol=1e-5, rtol=1e-5)


def test_sites_are_kinds_of_all_layers_or_places_and_come_once(tiny):
    found = activations(tiny, PAIRS, [Site(1, "mlp_post"), "mlp_post", "resid_post"])
    assert [*found.values] == [Site(1, "mlp_post"), Site(0, "mlp_post"), Site(0, "resid_post"), Site(1, "resid_post")]
    assert [*activations(tiny, PAIRS, Site(1, "attn_z")).values] == [Site(1, "attn_z")]
    assert found[Site(0, "resid_post")].shape == (5, 2, 32) and found.where == "readout"
    assert found.ids == tuple(pair.id for pair in PAIRS)
    assert found.scores.margin == pytest.approx(score(tiny, PAIRS).margin, abs=1e-5)
    with pytest.raises(
        InputError, match=r"^no activations at Site\(layer=0, kind='attn_z'\); there are those at Site\(layer=1, kind='mlp_post'\), "
    ):
        found[Site(0, "attn_z")]


def test_pairs_may_share_transcripts(tiny):
    """Each pair has its own rows, also where two pairs hold one transcript."""
    first = PAIRS[0]
    turned = tl_reward.PreferencePair("turned", first.rejected, first.chosen)
    found = activations(tiny, [first, turned], "resid_post")[Site(1, "resid_post")]
    torch.testing.assert_close(found[0], found[1].flip(0), atol=0, rtol=0)


@pytest.mark.parametrize(
    ("sites", "says"),
    [
        ([], "sites must not be empty; they are of resid_pre, "),
        ("mlp_psot", "sites must be one of resid_pre, resid_mid, .*, got 'mlp_psot'"),
        (["mlp_post", "nope"], r"sites\[1\] must be one of resid_pre, .*, got 'nope'"),
        (5, "sites must be "),
        (Site(7, "mlp_post"), r"layer must be in \[0, 2\), got 7"),
    ],
)
def test_sites_that_there_are_not(sites: Any, says: str, tiny):
    with pytest.raises(InputError, match=f"^{says}"):
        ANY(tiny, PAIRS, sites)


def test_a_site_that_an_architecture_does_not_have_is_named():
    neox = HookedRewardModel.from_hf(hf_model("gpt_neox"), byte_tokenizer())
    with pytest.raises(InputError, match=r"has no resid_mid: its layers have no hook point blocks\.0\.hook_resid_mid$"):
        activations(neox, PAIRS, "resid_mid")


def test_what_does_not_fit_is_refused_before_it_runs(tiny, monkeypatch):
    monkeypatch.setattr(pair_activations, "stream", lambda *_, **__: pytest.fail("it ran"))
    monkeypatch.setattr(pair_activations, "free_bytes", lambda _: 2 * 4 * 2 * 48 * 5)  # half of it holds one layer's neurons of 5 pairs
    with pytest.raises(OutOfMemory) as caught:
        activations(tiny, PAIRS, "mlp_post")
    assert "activations at 2 sites of 5 pairs take 3.58e-06 GiB, and half of what is free is 1.79e-06 GiB" in str(caught.value)
    assert str(caught.value).endswith("what would fit: 1 sites or 2 pairs at a time")
    monkeypatch.setattr(pair_activations, "free_bytes", lambda _: 8)
    with pytest.raises(OutOfMemory, match=r"not even one site of all pairs, or one pair, would fit$"):
        activations(tiny, PAIRS, "mlp_post")


def test_a_linear_probe_is_three_lines(tiny):
    found = activations(tiny, PAIRS, "resid_post", where="response")
    difference = found[Site(1, "resid_post")].diff(dim=1)[:, 0]  # rejected minus chosen, [pair, d_model]
    probe = torch.linalg.lstsq(difference, -torch.ones(len(difference), 1)).solution
    assert ((difference @ probe) < 0).all()
    assert [*found.to_frame()["id"]] == [*found.ids]


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("head", ["gate", "MLP"])
def test_rewards_of_every_head_are_its_own(head: str, packed: bool, tmp_path: Path, short_prompt_end: None):
    model = load(write(tmp_path, gated() if head == "gate" else mlp("score"), max_position_embeddings=4096))
    edits = EDITS["ablated"] if packed else [one_by_one]
    found = activations(model, PAIRS, ["mlp_post", "resid_post"], interventions=edits, max_tokens=4000)
    scores = score(model, PAIRS, interventions=edits)
    assert found.scores.chosen == pytest.approx(scores.chosen, abs=1e-5) and found.scores.rejected == pytest.approx(
        scores.rejected, abs=1e-5
    )
    if head == "gate":
        named = activations(model, PAIRS, "resid_post", output="output 1").scores
        assert named.output == "output 1" and named.chosen == pytest.approx(score(model, PAIRS, output="output 1").chosen, abs=1e-5)


@intervention("blocks.0.hook_resid_post")
def one_by_one(x: torch.Tensor) -> torch.Tensor:
    """No promise to be per token, so transcripts are rows of their own."""
    return x * 0.9
