"""Patches: into itself, everything, and against TransformerLens' own runs, one transcript at a time."""

from typing import Any, cast

import pytest
import torch
from helpers.architectures import hf_model
from helpers.linear_models import linear_model
from helpers.short_pairs import embedded_pairs

from tl_reward.analyses.attribution import attribute
from tl_reward.analyses.exact_effects import set_effects, singles
from tl_reward.analyses.pair_patching import aligned_tokens, patch_pairs
from tl_reward.data.alignment import Alignment, align
from tl_reward.data.encoding import EncodedPairs, Row
from tl_reward.data.pairs import PreferencePair, parse_transcript
from tl_reward.data.reading import Reading
from tl_reward.errors import InputError
from tl_reward.interventions.ablations import ZeroAblation
from tl_reward.interventions.from_functions import intervention
from tl_reward.interventions.patches import Patch, Source
from tl_reward.interventions.path_patches import PathPatch
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.model.tiny import byte_tokenizer, tiny_reward_model
from tl_reward.neurons import NeuronSet
from tl_reward.running.batches.batching import encode_for
from tl_reward.running.scoring import score, sweep
from tl_reward.sites import Site

PAIRS = embedded_pairs("find", 4)


def pair_of(name: str, chosen: str, rejected: str) -> PreferencePair:
    one, other = (parse_transcript(f"\n\nHuman: Hi\n\nAssistant: {side}") for side in (chosen, rejected))
    return PreferencePair(name, one, other)


UNEQUAL = [pair_of("long", "Yes, with pleasure.", "No."), pair_of("prefix", "Yes", "Yes, sir"), pair_of("one", "A", "B")]


def encoded_of(*texts: tuple[str, str]) -> EncodedPairs:
    pairs = tuple(pair_of(f"p{i}", *sides) for i, sides in enumerate(texts))
    rows = [Row(tuple(map(ord, side)), 1) for sides in texts for side in sides]
    return EncodedPairs(pairs, tuple(rows), tuple(range(0, len(rows), 2)), tuple(range(1, len(rows), 2)), Reading(len(pairs)))


def test_alignment_of_hand_made_rows():
    assert align(encoded_of(("pqABC", "pqD"), ("pqA", "pqAB"), ("pA", "pB"))) == [
        Alignment(shared=2, aligned=1, chosen_alone=2, rejected_alone=0),
        Alignment(shared=2, aligned=1, chosen_alone=0, rejected_alone=1),  # the read-out token is never shared
        Alignment(shared=1, aligned=1, chosen_alone=0, rejected_alone=0),
    ]
    with pytest.raises(InputError, match="pair p0: chosen and rejected share no prefix"):
        align(encoded_of(("ab", "cb")))


def every_place(model: HookedRewardModel) -> list[Site]:
    kinds = ("resid_pre", "attn_out", "mlp_post", "mlp_out", "resid_post")
    return [Site(layer, kind) for layer in range(model.cfg.n_layers) for kind in kinds]


def test_a_run_patched_into_itself_is_the_same(hooked):
    neurons = NeuronSet((layer, unit) for layer in range(hooked.cfg.n_layers) for unit in range(0, hooked.cfg.d_mlp, 3))
    source = Source(hooked)
    conditions = [[Patch(source, every_place(hooked))], [Patch(source, neurons)], [Patch(source, NeuronSet([(0, 1), (1, 3)]), "attn_z")]]
    clean, *patched = sweep(hooked, PAIRS, [(), *conditions], max_length=512)
    for scores in patched:
        assert scores.chosen == pytest.approx(clean.chosen, abs=1e-5) and scores.rejected == pytest.approx(clean.rejected, abs=1e-5)


@pytest.mark.parametrize("pairs", [PAIRS, UNEQUAL], ids=["like", "unequal"])
def test_the_last_layers_read_out_moves_the_whole_margin_in_both_directions(hooked, pairs):
    last = Site(hooked.cfg.n_layers - 1, "resid_post")
    clean = score(hooked, pairs, max_length=512)
    for where in ("all", "readout", -1):
        patched = score(hooked, pairs, interventions=[Patch(Source(hooked), [last], where=where, within_pair=True)], max_length=512)
        assert patched.chosen == pytest.approx(clean.rejected, abs=1e-5)
        assert patched.rejected == pytest.approx(clean.chosen, abs=1e-5)
    found = patch_pairs(hooked, pairs, kinds=("resid_post",), where=("readout",), max_length=512)
    for direction in ("noising", "denoising"):
        assert found.share(direction)[-1].value == pytest.approx(1, abs=1e-4)
    with pytest.raises(InputError, match="direction must be one of noising, denoising, got 'noised'"):
        found.share(cast(Any, "noised"))


def reference(model, encoded, pair, site, where, units=None):
    """Chosen and rejected rewards, each run patched from the other by TransformerLens' hooks, one transcript at a time."""
    ids = [encoded.rows[rows[pair]].ids for rows in (encoded.chosen, encoded.rejected)]
    shared = align(encoded)[pair].shared
    caches = [model.run_with_cache(torch.tensor([side]))[1][site.hook_name][0] for side in ids]
    rewards = []
    for mine, other in ((0, 1), (1, 0)):
        count = min(len(ids[0]), len(ids[1])) - shared
        offsets = {"all": range(1, count + 1), "readout": [1]}.get(where) or [-where]

        def fn(activation, hook, mine=mine, other=other, offsets=tuple(offsets), count=count):
            activation = activation.clone()
            for back in offsets:
                if back > count:
                    continue
                new = caches[other][-back]
                if units is None:
                    activation[0, -back] = new
                else:
                    activation[0, -back, units] = new[units]
            return activation

        rewards.append(model.run_with_hooks(torch.tensor([ids[mine]]), fwd_hooks=[(site.hook_name, fn)]).item())
    return rewards


@pytest.mark.parametrize("kind", ["resid_pre", "attn_out", "mlp_out", "mlp_post", "attn_z"])
def test_a_patch_within_a_pair_is_what_transformer_lens_gives_one_by_one(hooked, kind):
    encoded = encode_for(hooked, UNEQUAL, max_length=512)
    units = {"mlp_post": [2, 30], "attn_z": [1]}.get(kind)
    site = Site(1, kind)
    places = NeuronSet((1, unit) for unit in units) if units else [site]
    for where in ("all", "readout", -1):
        edit = Patch(Source(hooked), places, "attn_z" if kind == "attn_z" else "mlp_post", where=where, within_pair=True)
        found = score(hooked, UNEQUAL, interventions=[edit], max_length=512)
        for pair in range(len(UNEQUAL)):
            expected = reference(hooked, encoded, pair, site, where, units)
            assert [found.chosen[pair], found.rejected[pair]] == pytest.approx(expected, abs=1e-4)


def test_neurons_of_several_layers_are_all_taken_from_the_clean_run(tiny):
    neurons = NeuronSet([(0, 3), (0, 20), (1, 7), (1, 30)])
    encoded = encode_for(tiny, UNEQUAL)
    found = score(tiny, UNEQUAL, interventions=[Patch(Source(tiny), neurons, within_pair=True)])
    names = {layer: Site(layer, "mlp_post").hook_name for layer in (0, 1)}
    for pair in range(len(UNEQUAL)):
        ids = [encoded.rows[rows[pair]].ids for rows in (encoded.chosen, encoded.rejected)]
        count = align(encoded)[pair].aligned
        caches = [tiny.run_with_cache(torch.tensor([side]))[1] for side in ids]
        for mine, other, got in ((0, 1, found.chosen[pair]), (1, 0, found.rejected[pair])):

            def fn(activation, hook, other=other, count=count, caches=caches):
                activation = activation.clone()
                index = neurons.by_layer()[hook.layer()]
                activation[0, -count:, index] = caches[other][hook.name][0, -count:, index]
                return activation

            expected = tiny.run_with_hooks(torch.tensor([ids[mine]]), fwd_hooks=[(name, fn) for name in names.values()])
            assert got == pytest.approx(expected.item(), abs=1e-4)


def test_cells_are_single_patches_and_order_and_budget_do_not_matter(tiny):
    what = {"kinds": ("mlp_out", "attn_z"), "where": ("all", "readout"), "neurons": NeuronSet([(0, 3), (1, 7)])}
    found = patch_pairs(tiny, PAIRS, **what)
    other = patch_pairs(tiny, PAIRS[::-1], **what, max_tokens=1200)
    for name in ("noised", "denoised", "noised_estimate", "denoised_estimate"):
        assert getattr(found, name) == pytest.approx(getattr(other, name)[:, ::-1], abs=1e-4)
    assert len(found.cells) == 2 * (2 + 2 * 4) + 2 and found.cells[-1].layer is None
    clean = score(tiny, PAIRS)
    at = [i for i, cell in enumerate(found.cells) if cell[:4] == ("attn_z", "readout", 1, 2)]
    single = score(tiny, PAIRS, interventions=[Patch(Source(tiny), NeuronSet([(1, 2)]), "attn_z", where="readout", within_pair=True)])
    assert found.noised[at[0]] == pytest.approx(clean.chosen - single.chosen, abs=1e-5)
    assert found.denoised[at[0]] == pytest.approx(single.rejected - clean.rejected, abs=1e-5)
    entry = found.to_json()
    assert entry["aligned"]["aligned"] == [each.aligned for each in found.alignment] and entry["ids"] == [pair.id for pair in PAIRS]
    counts = {cell["where"]: cell["tokens"] for cell in entry["cells"]}
    assert counts == {"all": [sum(each.aligned for each in found.alignment)] * 2, "readout": [len(PAIRS)] * 2}


def test_attribution_patching_is_exact_on_a_linear_model():
    model = linear_model()
    kinds = ("resid_pre", "attn_out", "mlp_out", "attn_z")
    found = patch_pairs(model, UNEQUAL, kinds=kinds, where=("all", "readout", -1), neurons=NeuronSet([(1, 3), (1, 9)]), max_length=512)
    assert found.noised_estimate == pytest.approx(found.noised, abs=1e-5)
    assert found.denoised_estimate == pytest.approx(found.denoised, abs=1e-5)
    assert abs(found.noised).max() > 1e-2
    # `attribute` against the paired transcript: the same, both directions summed, neuron by neuron
    neurons = NeuronSet([(0, 3), (1, 20), (2, 9)])
    effect = attribute(model, UNEQUAL, baseline="pair", max_length=512).effect
    source = Source(model)
    exact = set_effects(
        model, UNEQUAL, singles(neurons), kind="patch", edit=lambda own: Patch(source, own, within_pair=True), max_length=512
    )  # fmt: skip
    assert [effect[place].item() for place in neurons] == pytest.approx(exact.margin.mean(1), abs=1e-5)


def test_one_run_of_the_source_a_batch_is_enough(tiny):
    source, runs = Source(tiny), []
    patches = [Patch(source, [Site(layer, kind)], within_pair=True) for layer in range(2) for kind in ("attn_out", "mlp_out")]
    forward = tiny.forward
    tiny.forward = lambda *args, **kwargs: runs.append(kwargs.get("start_at_layer")) or forward(*args, **kwargs)
    try:
        sweep(tiny, PAIRS, [[patch] for patch in patches], max_tokens=10**6)
    finally:
        del tiny.forward
    assert runs.count(None) == 1 + 2  # the source's, and two branches from the embedding on, of conditions that edit layer 0


def naive_path(model, ids, changed, sender, through, units):
    """The reward with one path patched: by hand, from caches of single transcripts of equal length."""
    clean, other = (model.run_with_cache(torch.tensor([side]))[1] for side in (ids, changed))
    change = other[sender.hook_name] - clean[sender.hook_name]
    if sender.kind in ("mlp_post", "attn_z"):
        block = model.blocks[sender.layer]
        if sender.kind == "attn_z":
            change = torch.einsum("bpnd,ndm->bpm", change[:, :, units], block.attn.W_O[units])
        else:
            change = change[:, :, units] @ block.mlp.W_out[units]
    if through is not None:
        before, after = clean["resid_pre", through], clean["resid_post", through]
        change = model(before + change, None, start_at_layer=through, stop_at_layer=through + 1) - after - change
    return model(clean["resid_post", model.cfg.n_layers - 1] + change, start_at_layer=model.cfg.n_layers).item()


@pytest.mark.parametrize("through", [None, 1, 2])
@pytest.mark.parametrize("kind", ["attn_out", "mlp_out", "mlp_post", "attn_z"])
def test_a_path_is_what_its_parts_give_by_hand(hooked, kind, through):
    pair = [UNEQUAL[2]]  # of equal length
    encoded = encode_for(hooked, pair)
    ids = [encoded.rows[rows[0]].ids for rows in (encoded.chosen, encoded.rejected)]
    units = {"mlp_post": [2, 30], "attn_z": [1]}.get(kind)
    sender = NeuronSet((0, unit) for unit in units) if units else Site(0, kind)
    options = {"through": through, "site": kind if units else "mlp_post", "within_pair": True}
    post_norm = hooked.blocks[0].output_norms().mlp is not None
    if units and post_norm:
        with pytest.raises(InputError, match="where a norm follows them"):
            PathPatch(hooked, Source(hooked), sender, **options)
        return
    found = score(hooked, pair, interventions=[PathPatch(hooked, Source(hooked), sender, **options)])
    for got, (mine, other) in ((found.chosen[0], ids), (found.rejected[0], ids[::-1])):
        assert got == pytest.approx(naive_path(hooked, mine, other, Site(0, kind), through, units), abs=1e-4)


def test_the_direct_path_of_the_last_layer_is_all_that_it_does(hooked):
    last = Site(hooked.cfg.n_layers - 1, "mlp_out")
    path = PathPatch(hooked, Source(hooked), last, within_pair=True)
    whole = Patch(Source(hooked), [last], within_pair=True)
    one, other = sweep(hooked, UNEQUAL, [[path], [whole]], max_length=512)
    assert one.chosen == pytest.approx(other.chosen, abs=1e-4) and one.rejected == pytest.approx(other.rejected, abs=1e-4)


EARLY = ZeroAblation(NeuronSet((0, neuron) for neuron in range(48)))


def shifted(size: float):
    return intervention(Site(1, "resid_pre"), per_token=True)(lambda activation: activation + size)


@pytest.mark.parametrize("kind", ["patch", "direct path", "path through"])
def test_a_patch_is_of_the_model_as_the_edits_before_it_leave_it(tiny, kind):
    made = {
        "patch": lambda: Patch(Source(tiny), [Site(1, "attn_out")], within_pair=True),
        "direct path": lambda: PathPatch(tiny, Source(tiny), Site(0, "mlp_out"), within_pair=True),
        "path through": lambda: PathPatch(tiny, Source(tiny), Site(0, "attn_out"), through=1, within_pair=True),
    }[kind]
    # Weights that write nothing are the same edit as the ablation.
    pruned = tiny_reward_model()
    pruned.blocks[0].mlp.W_out.data.zero_()
    edit = made()
    sender, through = (edit.sender, edit.through) if isinstance(edit, PathPatch) else (Site(0, "mlp_out"), None)
    own = PathPatch(pruned, Source(pruned), sender, through, within_pair=True)
    edit = Patch(Source(pruned), [Site(1, "attn_out")], within_pair=True) if kind == "patch" else own
    expected = score(pruned, PAIRS, interventions=[edit])
    shared = made()  # one source, asked in the background and in a condition
    for found in (
        score(tiny, PAIRS, interventions=[EARLY, made()]),
        sweep(tiny, PAIRS, [[made()]], interventions=[EARLY])[0],
        sweep(tiny, PAIRS, [(), [EARLY, made()]])[1],
        sweep(tiny, PAIRS, [[shared], [EARLY, shared]])[1],
    ):
        assert found.chosen == pytest.approx(expected.chosen, abs=1e-5) and found.rejected == pytest.approx(expected.rejected, abs=1e-5)
    assert kind == "direct path" or abs(expected.chosen - score(tiny, PAIRS, interventions=[made()]).chosen).max() > 1e-3


def test_paths_add_up_and_leave_other_edits_alone(tiny):
    paths = [PathPatch(tiny, Source(tiny), Site(layer, "mlp_out"), within_pair=True) for layer in (0, 1)]
    both = PathPatch(tiny, Source(tiny), Site(0, "mlp_out"), within_pair=True), ZeroAblation(NeuronSet([(1, 7), (1, 30)]))
    clean, one, other, together, zero, edited = sweep(tiny, PAIRS, [(), [paths[0]], [paths[1]], paths, [both[1]], list(both)])
    assert abs(together.chosen - one.chosen).max() > 1e-3 and abs(together.chosen - other.chosen).max() > 1e-3
    assert abs(edited.chosen - one.chosen).max() > 1e-3 and abs(edited.chosen - zero.chosen).max() > 1e-3
    for size in (0.0, 2.0):  # a path from the model itself changes nothing, under an edit of the layer on the path too
        itself = PathPatch(tiny, Source(tiny), Site(0, "mlp_out"), through=1)
        with_path, without = sweep(tiny, PAIRS, [[itself], ()], interventions=[shifted(size)])
        assert with_path.chosen == pytest.approx(without.chosen, abs=1e-5)
    assert clean.chosen == pytest.approx(score(tiny, PAIRS).chosen, abs=1e-5)


def test_an_edit_in_place_does_not_reach_the_source(tiny):
    def double(activation):
        activation *= 2

    edit = intervention(Site(1, "resid_pre"), per_token=True)(double)
    plain = score(tiny, PAIRS, interventions=[edit])
    patched = score(tiny, PAIRS, interventions=[edit, Patch(Source(tiny), [Site(0, "resid_post")])])
    assert patched.chosen == pytest.approx(plain.chosen, abs=1e-5)
    assert attribute(tiny, PAIRS, interventions=[edit]).effect.abs().sum() > 0


def test_tokens_of_a_pair_are_those_that_are_aligned(tiny):
    tokens = aligned_tokens(tiny, UNEQUAL[0])
    assert [token["rejected"] for token in tokens] == list("No.") and [token["chosen"] for token in tokens] == list("re.")


def test_bad_patches_are_refused_in_one_line(tiny):
    with pytest.raises(InputError, match="a place in the transcript is for patches within a pair"):
        Patch(Source(tiny), [Site(0, "mlp_out")], where=-1)
    with pytest.raises(InputError, match=r"where must be one of readout, response, all, .*got 'prompt'"):
        Patch(Source(tiny), [Site(0, "mlp_out")], where=cast(Any, "prompt"))
    with pytest.raises(InputError, match="hook_reward cannot be patched"):
        Patch(Source(tiny), ["hook_reward"])
    for at in (-2, 3, -27):
        with pytest.raises(InputError, match=rf"pair one: a place must be in \[-1, -1\].*got {at}"):
            patch_pairs(tiny, UNEQUAL[2:], where=(at,))
    with pytest.raises(InputError, match=r"where must be in \[-25, 25\), a transcript's places, got -27"):
        score(tiny, UNEQUAL[2:], interventions=[Patch(Source(tiny), [Site(0, "mlp_out")], where=-27, within_pair=True)])
    with pytest.raises(InputError, match="places must be a NeuronSet or a list, got"):
        Patch(Source(tiny), "blocks.0.hook_mlp_out")
    with pytest.raises(InputError, match=r"neuron must be in \[0, 48\), got 48"):
        PathPatch(tiny, Source(tiny), NeuronSet([(0, 48)]))
    with pytest.raises(InputError, match=r"where must be one of readout, response, all, .*got 'prompt'"):
        PathPatch(tiny, Source(tiny), Site(0, "mlp_out"), where=cast(Any, "prompt"))
    with pytest.raises(InputError, match="does nothing unless use_hook_mlp_in is on"):
        score(tiny, PAIRS, interventions=[Patch(Source(tiny), ["blocks.0.hook_mlp_in"])])
    late = intervention(Site(0, "mlp_out"))(lambda a: a)
    with pytest.raises(InputError, match="state per_token = True; FunctionIntervention does not"):
        score(tiny, PAIRS, interventions=[late, Patch(Source(tiny), [Site(0, "mlp_out")], within_pair=True)])
    with pytest.raises(InputError, match=r"no hook point .blocks\.7\.hook_mlp_out.*nearest: blocks"):
        score(tiny, PAIRS, interventions=[Patch(Source(tiny), [Site(7, "mlp_out")])])
    with pytest.raises(InputError, match=r"must go through a layer in \[1, 2\), got 0"):
        PathPatch(tiny, Source(tiny), Site(0, "mlp_out"), through=0)
    with pytest.raises(InputError, match="sender of a path must be attn_out, mlp_out or neurons of one layer, got 'resid_post'"):
        PathPatch(tiny, Source(tiny), Site(0, "resid_post"))
    with pytest.raises(InputError, match="must be in one layer, got neurons of 2"):
        PathPatch(tiny, Source(tiny), NeuronSet([(0, 1), (1, 1)]))
    with pytest.raises(InputError, match="nothing to patch"):
        patch_pairs(tiny, PAIRS, kinds=())
    edit = Patch(Source(tiny), [Site(0, "mlp_out")], within_pair=True)
    with pytest.raises(InputError, match="is for scores and sweeps"):
        attribute(tiny, PAIRS, interventions=[edit])
    hook = ("blocks.0.attn.hook_pattern", lambda a, hook: None)
    with tiny.hooks(fwd_hooks=[hook]), pytest.raises(InputError, match="take off hooks of your own"):
        score(tiny, PAIRS, interventions=[edit])
    assert not any(point._forward_hooks for point in tiny.hook_points())


def test_no_shared_prefix_is_named():
    model = HookedRewardModel.from_hf(hf_model("llama"), byte_tokenizer())
    assert model.tokenizer is not None
    model.tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    pair = PreferencePair("apart", parse_transcript("\n\nHuman: ab\n\nAssistant: c"), parse_transcript("\n\nHuman: xy\n\nAssistant: c"))
    with pytest.raises(InputError, match="pair apart: chosen and rejected share no prefix"):
        patch_pairs(model, [pair])
    with pytest.raises(InputError, match="pair apart: chosen and rejected share no prefix"):
        score(model, [pair], interventions=[Patch(Source(model), [Site(0, "mlp_out")], within_pair=True)])
