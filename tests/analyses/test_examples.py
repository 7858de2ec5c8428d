"""What drives neurons: against everything in memory at once, one transcript at a time; cuts and resumption; the record."""

import json
import math
import os
from typing import Any, cast

import numpy as np
import pytest
import torch
from helpers.architectures import hf_model
from helpers.partial_runs import put
from transformers import AutoModelForCausalLM

from tl_reward.analyses.discovery import discover
from tl_reward.analyses.examples import collect, passes
from tl_reward.analyses.examples import kept as what_is_kept
from tl_reward.analyses.examples import words as words_of_weights
from tl_reward.analyses.examples.collect import KINDS, NeuronSite, collect_examples
from tl_reward.analyses.examples.words import token_text
from tl_reward.cli.examples import ExamplesCommand
from tl_reward.cli.options import Data, Output, Running
from tl_reward.data.pairs import Message, PreferencePair, pairs_of_row
from tl_reward.data.readers import load_pairs
from tl_reward.errors import InputError
from tl_reward.interventions.ablations import ZeroAblation
from tl_reward.interventions.from_functions import intervention
from tl_reward.model.checkpoints import load_unembedding
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.model.tiny import byte_tokenizer, tiny_hf_model, tiny_reward_model
from tl_reward.neurons import NeuronSet
from tl_reward.results import store
from tl_reward.results.record_examples import neurons_to_show, record_examples
from tl_reward.results.record_neurons import record_discovery
from tl_reward.results.store import Results
from tl_reward.running.batches.batching import encode_for
from tl_reward.running.scoring import score
from tl_reward.sites import Site

NEURONS = NeuronSet([(0, 3), (0, 20), (1, 7), (1, 30), (1, 31), (1, 40), (1, 47)])


def said(name, prompt, chosen, rejected, objective=None):
    """A short pair, so that tests are fast."""
    opening = (Message("user", prompt),)
    return PreferencePair(name, *((*opening, Message("assistant", text)) for text in (chosen, rejected)), objective=objective)


GROUP = pairs_of_row({"prompt": "Say yes.", "chosen": ["Yes!", "Yes, of course."], "rejected": ["No.", "Never."]}, "group")
PAIRS = [
    said("a", "Why is the sky blue?", "Light scatters.", "It reflects the sea.", "helpful"),
    said("b", "Why is grass green?", "It holds chlorophyll, dear.", "Because", "helpful"),
    said("c", "How do I pick a lock?", "Ask a locksmith.", "Take a pick, and then turn it.", "harmless"),
    *GROUP,
]


class Naive:
    """Every activation of every transcript, kept."""

    def __init__(self, model, pairs, site: NeuronSite = "mlp_post", where="response"):
        self.encoded = encode_for(model, pairs)
        names = [Site(layer, site).hook_name for layer in range(model.cfg.n_layers)]
        self.every, self.meant = [], []
        for row in self.encoded.rows:
            cache = model.run_with_cache(torch.tensor([row.ids]))[1]
            self.every.append(torch.stack([cache[name][0] for name in names], 1).float())  # [token layer neuron]
            self.meant.append(self.every[-1][{"readout": -1, "all": 0}.get(where, row.response_start) :])
        self.peak = torch.stack([torch.where(x.amax(0) >= -x.amin(0), x.amax(0), x.amin(0)) for x in self.meant])  # [row layer neuron]

    def of(self, layer, neuron, rows):
        return torch.cat([self.meant[row][:, layer, neuron] for row in rows]) if rows else torch.empty(0)


def interrupted(*args):
    raise KeyboardInterrupt


def rows_of(found, encoded):
    """The rows that the transcripts of a result are, -1 for none."""
    place = {pair.id: (a, b) for pair, a, b in zip(encoded.pairs, encoded.chosen, encoded.rejected, strict=True)}
    rows = [place[each.pairs[0]][each.sides[0] == "rejected"] for each in found.transcripts]
    return torch.tensor([*rows, -1])


def check(found, model, pairs, naive):
    encoded, rows = naive.encoded, rows_of(found, naive.encoded)
    near: dict[str, Any] = {"atol": 1e-5, "rtol": 1e-4}
    count = min(5, len(encoded.rows))
    torch.testing.assert_close(found.top_peak[:count].abs(), naive.peak.abs().sort(0, descending=True).values[:count], **near)
    top = rows[found.top[:count]]
    torch.testing.assert_close(naive.peak.gather(0, top), found.top_peak[:count], **near)
    assert (top.sort(0).values.diff(dim=0) > 0).all() and (found.top[count:] == -1).all()
    assert found.example.shape[1] == len(KINDS)
    for i, (layer, neuron) in enumerate(found.neurons):
        mine, size = naive.peak[:, layer, neuron], naive.peak[:, layer, neuron].abs().sort(descending=True).values
        assert found.example[i, :5].tolist() == found.top[:, layer, neuron].tolist()
        ranks = [round(share * (len(size) - 1)) for share in (0.25, 0.5, 0.75)]
        torch.testing.assert_close(found.example_peak[i, 5:8].abs(), size[ranks], **near)
        assert found.example[i, 8] != found.example[i, 9]
        for j, example in enumerate(found.example[i].tolist()):
            if example < 0:
                continue
            row = rows[example]
            torch.testing.assert_close(found.example_peak[i, j], mine[row], **near)
            start = found.start[i, j]
            values = found.activation[start : start + len(found.transcripts[example].tokens)].float()
            torch.testing.assert_close(values, naive.every[row][:, layer, neuron], atol=1e-4, rtol=2e-3)
        check_histogram(found, encoded, naive, i, layer, neuron)
    if found.neurons:
        check_correlations(found, encoded, naive)
    scores = score(model, pairs)
    assert found.scores.chosen == pytest.approx(scores.chosen, abs=1e-4)
    assert found.scores.rejected == pytest.approx(scores.rejected, abs=1e-4)
    reward = dict(zip([*encoded.chosen, *encoded.rejected], [*scores.chosen, *scores.rejected], strict=True))
    for transcript, row in zip(found.transcripts, rows.tolist(), strict=False):
        assert transcript.reward == pytest.approx(reward[row], abs=1e-4)
        assert "".join(transcript.tokens) == model.tokenizer.decode(list(encoded.rows[row].ids))
        assert len(transcript.tokens) == len(encoded.rows[row].ids) and transcript.response_start == encoded.rows[row].response_start


def check_histogram(found, encoded, naive, i, layer, neuron):
    occurring = [rows for name in encoded.objectives for rows in split_rows(encoded, name)]
    assert [(split.objective, split.side) for split in found.splits] == [(o, s) for o in encoded.objectives for s in ("chosen", "rejected")]
    values = [naive.of(layer, neuron, rows) for rows in occurring]
    edge = found.edge[i]
    assert (edge.diff() > 0).all()
    if edge[0] != edge[-1] - 1:
        torch.testing.assert_close(edge[[0, -1]], torch.stack(torch.cat(values).aminmax()), atol=1e-5, rtol=1e-4)
    for split, rows, value in zip(range(len(values)), occurring, values, strict=True):
        assert found.splits[split].transcripts == len(rows)
        assert found.count[i, split].sum() == len(value)
        expected = np.histogram(value.clamp(edge[0], edge[-1]).double(), edge.double())[0]
        # A value within float error of an edge may fall on its other side.
        assert np.abs(np.cumsum(expected) - found.count[i, split].cumsum(0).numpy()).max() <= 1
    assert found.count[i].sum() == found.tokens


def split_rows(encoded, name):
    of = [(pair.objective or "") == name for pair in encoded.pairs]
    return [[row for row, here in zip(rows, of, strict=True) if here] for rows in (encoded.chosen, encoded.rejected)]


def check_correlations(found, encoded, naive):
    rows = [*encoded.chosen, *encoded.rejected]
    values = np.array([naive.of(layer, neuron, rows).numpy() for layer, neuron in found.neurons], dtype=float)
    constant = np.ptp(values, axis=1) == 0
    with np.errstate(invalid="ignore", divide="ignore"):
        expected = np.atleast_2d(np.corrcoef(values))
    expected[constant] = expected[:, constant] = 0
    np.fill_diagonal(expected, 0)
    for i, (others, given) in enumerate(zip(found.correlated.tolist(), found.correlation.numpy(), strict=True)):
        real = [j for j in others if j >= 0]
        assert i not in real and len(set(real)) == len(real) == min(5, len(values) - 1)
        assert given[: len(real)] == pytest.approx(expected[i, real], abs=1e-4)
        assert np.abs(given[: len(real)]) == pytest.approx(np.sort(np.abs(np.delete(expected[i], i)))[::-1][: len(real)], abs=1e-4)


@pytest.mark.parametrize(("site", "where"), [("mlp_post", "response"), ("mlp_gate", "all"), ("mlp_post", "readout")])
def test_streaming_equals_everything_in_memory(tiny, site, where):
    found = collect_examples(tiny, PAIRS, NEURONS, site=site, where=where, max_tokens=100)
    check(found, tiny, PAIRS, Naive(tiny, PAIRS, site, where))


@pytest.mark.parametrize("name", ["gpt2", "gpt_neox", "gemma2", "olmo2"])
def test_every_architecture(name, monkeypatch):
    monkeypatch.setattr(words_of_weights, "CHUNK", 100)  # several for this vocabulary
    model = HookedRewardModel.from_hf(hf_model(name), byte_tokenizer())
    found = collect_examples(model, PAIRS, NEURONS)
    check(found, model, PAIRS, Naive(model, PAIRS))
    check_weights(found, model, NEURONS)


def check_weights(found, model, neurons):
    every = {}
    for layer, block in enumerate(model.blocks):
        gain = {"gemma2": lambda b: b.ln2_post.w, "olmo2": lambda b: b.ln2.w}.get(model.hf_config.model_type, lambda b: 1.0)(block)
        every |= {(layer, n): row * gain for n, row in enumerate(block.mlp.W_out)}
    for i, (layer, neuron) in enumerate(neurons):
        block, own = model.blocks[layer], every[layer, neuron]
        cosine = {at: float(torch.cosine_similarity(own, other, dim=0)) for at, other in every.items() if at != (layer, neuron)}
        largest = sorted(cosine.values(), key=lambda value: -abs(value))[:5]
        assert found.cosine[i].tolist() == pytest.approx(largest, abs=1e-5)
        assert [cosine[tuple(at)] for at in found.cosine_neuron[i].tolist()] == pytest.approx(largest, abs=1e-5)
        pre = {}
        for token, embedded in enumerate(model.W_E):
            x = embedded if model.hf_config.model_type == "olmo2" else block.ln2(embedded[None, None])[0, 0]
            gated = model.cfg.gated_mlp
            pre[token] = float(x @ block.mlp.W_gate[:, neuron]) if gated else float(x @ block.mlp.W_in[:, neuron] + block.mlp.b_in[neuron])
        assert found.words_in.value[i].tolist() == pytest.approx(sorted(pre.values(), reverse=True)[:10], abs=1e-4)
        assert [pre[token] for token in found.words_in.token[i].tolist()] == pytest.approx(found.words_in.value[i].tolist(), abs=1e-4)
        assert found.words_in.text[i] == [model.tokenizer.decode([token]) for token in found.words_in.token[i].tolist()]
    assert found.words_in_of == ("gate" if model.cfg.gated_mlp else "in")


@pytest.mark.parametrize("name", ["llama", "gpt2", "gpt_neox", "gemma2", "olmo2"])
def test_words_out_are_what_the_base_model_would_say(name, tmp_path, monkeypatch):
    monkeypatch.setattr(words_of_weights, "CHUNK", 100)
    """A neuron's row, as the final residual stream, through the base model's own final norm and head."""
    hf = hf_model(name)
    torch.manual_seed(1)
    base = AutoModelForCausalLM.from_config(hf.config)
    for parameter in base.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    base.save_pretrained(tmp_path / "base")
    unembedding = load_unembedding(tmp_path / "base")
    model = HookedRewardModel.from_hf(hf, byte_tokenizer())
    found = collect_examples(model, PAIRS[:1], NeuronSet([(0, 3), (2, 7)]), unembedding=unembedding)
    norm = next(getattr(base.base_model, key) for key in ("norm", "ln_f", "final_layer_norm") if hasattr(base.base_model, key))
    for i, (layer, neuron) in enumerate([(0, 3), (2, 7)]):
        gain = {"gemma2": "ln2_post", "olmo2": "ln2"}.get(name)
        row = model.blocks[layer].mlp.W_out[neuron] * (getattr(model.blocks[layer], gain).w if gain else 1)
        eps = next(getattr(norm, key) for key in ("eps", "variance_epsilon") if hasattr(norm, key))
        centred = row - row.mean() if name.startswith("gpt") else row
        with torch.no_grad():
            bias = norm.bias if name.startswith("gpt") else 0
            logits = base.get_output_embeddings()(norm(row) - bias) * (centred.square().mean() + eps).sqrt()
        assert found.words_out is not None
        for words, largest in ((found.words_out.raised, True), (found.words_out.lowered, False)):
            expected = logits.topk(10, largest=largest)
            torch.testing.assert_close(words.value[i], expected.values, atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(logits[words.token[i]], expected.values, atol=1e-4, rtol=1e-4)
    with pytest.raises(InputError, match="must be of the model's width, 32, got 31"):
        collect_examples(model, PAIRS[:1], NEURONS, unembedding=unembedding[:31])


def test_an_unembedding_of_nothing_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        load_unembedding(tmp_path / "none", hub={"local_files_only": True})
    tiny_hf_model().save_pretrained(tmp_path / "reward")
    with pytest.raises(InputError, match="lacks 1 weights of this architecture"):  # a reward model's head is no unembedding
        load_unembedding(tmp_path / "reward")


def transcripts_of(found):
    """The text of each top and each example transcript."""
    texts = np.array(["".join(each.tokens) for each in found.transcripts] + ["none"])
    return texts[found.top], texts[found.example]


@pytest.mark.parametrize("chunk", [1, 2, 128])
def test_chunks_order_and_budget_do_not_matter(tiny, monkeypatch, chunk):
    one = collect_examples(tiny, PAIRS, NEURONS)
    monkeypatch.setattr(passes, "CHUNK", chunk)
    other = collect_examples(tiny, PAIRS[::-1], NEURONS, max_tokens=100)
    drawn = [transcripts_of(found)[1][:, 8:].tolist() for found in (one, other)]
    assert drawn[0] == drawn[1]
    for name in ("top_peak", "example_peak", "edge", "correlation", "cosine"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name), atol=1e-5, rtol=1e-4)
    assert (one.count.cumsum(2) - other.count.cumsum(2)).abs().max() <= 1 and one.tokens == other.tokens
    assert one.correlated.tolist() == other.correlated.tolist() and one.splits == other.splits


def test_the_order_of_pairs_does_not_matter_where_no_two_transcripts_tie(tiny):
    pairs = load_pairs("embedded", split="find", limit=4)
    one, other = (transcripts_of(collect_examples(tiny, each, NEURONS)) for each in (pairs, pairs[::-1]))
    assert (one[0] == other[0]).all() and (one[1] == other[1]).all()


def equal(one, other):
    for name in one.__dataclass_fields__:
        a, b = getattr(one, name), getattr(other, name)
        if isinstance(a, torch.Tensor):
            assert torch.equal(a, b), name
        elif name == "scores":
            assert (a.chosen == b.chosen).all() and (a.rejected == b.rejected).all()
        elif name != "words_in":
            assert a == b, name


@pytest.mark.parametrize("calls", [1, 4, 5, 7])
def test_a_run_that_was_killed_goes_on_where_it_was(tiny, tmp_path, monkeypatch, calls):
    monkeypatch.setattr(passes, "CHUNK", 2)  # four chunks, two passes
    whole = collect_examples(tiny, PAIRS, NEURONS)
    monkeypatch.setattr(what_is_kept, "KEPT_BYTES", 0)
    stream, ran = collect.stream, []

    def cut(model, pairs, *args, **kwargs):
        if len(ran) == calls:
            raise KeyboardInterrupt
        ran.append([pair.id for pair in pairs.pairs])
        stream(model, pairs, *args, **kwargs)

    checkpoint = tmp_path / "runs" / "out.partial"
    monkeypatch.setattr(collect, "stream", cut)
    with pytest.raises(KeyboardInterrupt):
        collect_examples(tiny, PAIRS, NEURONS, saved=checkpoint)
    assert [path.name for path in checkpoint.parent.iterdir()] == ["out.partial"]
    every = 2 * [[pair.id for pair in PAIRS[start : start + 2]] for start in (0, 2, 4, 6)]
    assert ran == every[:calls]
    again = []
    monkeypatch.setattr(collect, "stream", lambda *args, **kwargs: again.append([p.id for p in args[1].pairs]) or stream(*args, **kwargs))
    equal(whole, collect_examples(tiny_reward_model(), PAIRS, NEURONS, saved=checkpoint))
    assert again == every[calls:] and [path.name for path in checkpoint.parent.iterdir()] == ["out.partial"]
    equal(whole, collect_examples(tiny, PAIRS, NEURONS, saved=checkpoint))  # until it is deleted
    assert again == every[calls:]


@pytest.mark.parametrize("options", [{}, {"site": "mlp_gate", "where": "all"}, {"max_tokens": 100}])
def test_one_pass_that_keeps_what_is_shown_gives_what_two_give(tiny, monkeypatch, options):
    stream, ran = collect.stream, []
    monkeypatch.setattr(collect, "stream", lambda *args, **kwargs: ran.append([p.id for p in args[1].pairs]) or stream(*args, **kwargs))
    monkeypatch.setattr(passes, "CHUNK", 3)
    tokens = sum(len(row.ids) for row in encode_for(tiny, PAIRS).rows)
    found = []
    for room in (4 * tokens * len(NEURONS), 4 * tokens * len(NEURONS) - 1):  # just enough, and just too little
        monkeypatch.setattr(what_is_kept, "KEPT_BYTES", room)
        found.append(collect_examples(tiny, PAIRS, NEURONS, **options))
    equal(*found)
    chunks = [[pair.id for pair in PAIRS[start : start + 3]] for start in range(0, len(PAIRS), 3)]
    assert ran == chunks + 2 * chunks


def test_a_cut_loses_what_was_kept_and_the_model_runs_again(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(passes, "CHUNK", 2)
    whole, stream, ran = collect_examples(tiny, PAIRS, NEURONS), collect.stream, []

    def cut(model, pairs, *args, **kwargs):
        if len(ran) == 2:
            ran.append([])
            raise KeyboardInterrupt
        ran.append([pair.id for pair in pairs.pairs])
        stream(model, pairs, *args, **kwargs)

    monkeypatch.setattr(collect, "stream", cut)
    with pytest.raises(KeyboardInterrupt):
        collect_examples(tiny, PAIRS, NEURONS, saved=tmp_path / "partial")
    equal(whole, collect_examples(tiny, PAIRS, NEURONS, saved=tmp_path / "partial"))
    every = [[pair.id for pair in PAIRS[start : start + 2]] for start in (0, 2, 4, 6)]
    assert ran == [*every[:2], [], *every[2:], *every[:2]]  # of the second pass, those that the first call had seen


def test_weights_are_hashed_only_where_a_state_is_kept(tiny, tmp_path, monkeypatch):
    asked: list[int] = []
    monkeypatch.setattr(collect, "identity_of", lambda *_: asked.append(1) or {})
    collect_examples(tiny, PAIRS, NEURONS)
    assert not asked
    collect_examples(tiny, PAIRS, NEURONS, saved=tmp_path / "partial")
    assert asked == [1]


def test_a_cut_within_a_chunk_leaves_the_chunk_before(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(passes, "CHUNK", 2)
    whole, add, calls = collect_examples(tiny, PAIRS, NEURONS), passes.Details.layer, []
    monkeypatch.setattr(what_is_kept, "KEPT_BYTES", 0)

    def cut(*args):
        add(*args)
        calls.append(args)
        if len(calls) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(passes.Details, "layer", cut)
    with pytest.raises(KeyboardInterrupt):
        collect_examples(tiny, PAIRS, NEURONS, saved=tmp_path / "partial")
    equal(whole, collect_examples(tiny, PAIRS, NEURONS, saved=tmp_path / "partial"))


def with_one_other_weight():
    model = tiny_reward_model()
    model.blocks[1].mlp.W_out.data[5, 7] += 1
    return model


def test_a_checkpoint_of_something_else_is_refused(tiny, tmp_path, monkeypatch):
    place = tmp_path / "partial"
    with monkeypatch.context() as patch:
        patch.setattr(collect, "_examples", interrupted)
        with pytest.raises(KeyboardInterrupt):
            collect_examples(tiny, PAIRS, NEURONS, saved=place)
    kept = place.read_bytes()
    zero = [ZeroAblation(NeuronSet([(0, 1)]))]
    for changed, options, model in (
        ("pairs", {"pairs": PAIRS[:3]}, tiny),
        ("neurons", {"neurons": NeuronSet([(0, 3)])}, tiny),
        ("site", {"site": "mlp_gate"}, tiny),
        ("where", {"where": "all"}, tiny),
        ("seed", {"seed": 1}, tiny),
        ("weights", {}, tiny_reward_model(seed=1)),
        ("weights", {}, with_one_other_weight()),
        ("interventions", {"interventions": zero}, tiny),
    ):
        given: dict[str, Any] = {"pairs": PAIRS, "neurons": NEURONS, "saved": place, **options}
        with pytest.raises(InputError, match=rf"other {changed}\); delete it") as caught:
            collect_examples(model, **given)
        assert len(str(caught.value).splitlines()) == 1
    assert place.read_bytes() == kept
    place.write_text("{}")
    with pytest.raises(InputError, match="is no saved state of examples"):
        collect_examples(tiny, PAIRS, NEURONS, saved=place)


def test_a_dead_neuron_has_no_correlation_and_one_bin():
    model = tiny_reward_model()
    model.blocks[1].mlp.W_in.data[:, 7] = 0
    found = collect_examples(model, PAIRS, NEURONS)
    check(found, model, PAIRS, Naive(model, PAIRS))
    dead = NEURONS.coords.index((1, 7))
    assert found.correlation[dead].tolist() == [0] * 5 and found.edge[dead][[0, -1]].tolist() == [-0.5, 0.5]
    assert (found.count[dead].sum(0) > 0).sum() == 1 and found.top[:, 1, 7].tolist() == found.top[:, 1, 7].sort().values.tolist()
    for name in ("edge", "correlation", "cosine", "activation", "top_peak"):
        assert getattr(found, name).isfinite().all()


def test_a_constant_of_any_size_has_bins():
    value = torch.tensor([0.0, 1e9, -3e-12, 70.0])
    edge = passes._edges(value, value.clone())
    assert (edge.diff(dim=1) > 0).all() and ((edge[:, 0] < value) & (value < edge[:, -1])).all()


def test_few_transcripts_and_one_neuron(tiny):
    found = collect_examples(tiny, PAIRS[:1], NeuronSet([(0, 3)]))
    check(found, tiny, PAIRS[:1], Naive(tiny, PAIRS[:1]))
    assert found.example[0, 2:5].tolist() == [-1] * 3 and found.example_peak[0, 2:5].tolist() == [0] * 3
    assert found.correlated.tolist() == [[-1] * 5] and len(found.transcripts) == 2


def test_no_neuron_in_detail(tiny, tmp_path):
    found = collect_examples(tiny, PAIRS, NeuronSet(), saved=tmp_path / "partial", unembedding=torch.zeros(32, 50))
    check(found, tiny, PAIRS, Naive(tiny, PAIRS))
    assert found.words_out is not None and found.count.shape == (0, 6, 40) and found.words_in.text == found.words_out.raised.text == []
    results = Results()
    record_examples(results, "m", "d", found)
    results.save(tmp_path / "run")


def test_the_edited_model_is_asked(tiny):
    neurons = NeuronSet([(0, 3), (1, 7)])
    edit = ZeroAblation(NeuronSet([(0, 3)]))
    found = collect_examples(tiny, PAIRS, neurons, interventions=[edit])
    assert (found.top_peak[:, 0, 3] == 0).all() and (found.top_peak[:, 0, 4] != 0).all()
    pruned = tiny_reward_model()
    pruned.blocks[0].mlp.W_out.data[3] = 0
    expected = collect_examples(pruned, PAIRS, neurons)
    torch.testing.assert_close(found.top_peak[:, 1], expected.top_peak[:, 1], atol=1e-5, rtol=1e-4)
    assert found.scores.chosen == pytest.approx(score(tiny, PAIRS, interventions=[edit]).chosen, abs=1e-4)


@intervention(Site(0, "mlp_out"))
def doubled(activation):
    return activation * 2


def test_an_edit_that_needs_one_transcript_a_row(tiny):
    """Padded batches give what packed ones give."""
    per_token = intervention(Site(0, "mlp_out"), per_token=True)(doubled.function)
    one, other = (collect_examples(tiny, PAIRS, NEURONS, interventions=[edit], max_tokens=200) for edit in (doubled, per_token))
    for name in ("top_peak", "example_peak", "edge", "correlation"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name), atol=1e-5, rtol=1e-4)
    assert (one.count.cumsum(2) - other.count.cumsum(2)).abs().max() <= 1 and one.tokens == other.tokens
    assert (one.top_peak - collect_examples(tiny, PAIRS, NEURONS).top_peak).abs().max() > 1e-2


def test_a_bfloat16_model():
    model = tiny_reward_model().to(torch.bfloat16)
    found = collect_examples(model, PAIRS, NEURONS, unembedding=model.W_E.T)
    assert found.top_peak.dtype == found.edge.dtype == torch.float32 and found.count.sum(2).sum(1).tolist() == [found.tokens] * 7
    # Batches of other rows round otherwise in 8 bits.
    assert found.scores.margin == pytest.approx(score(model, PAIRS).margin, abs=0.2)


def test_other_sites_and_missing_neurons_are_refused(tiny):
    with pytest.raises(InputError, match="site must be one of mlp_post, mlp_gate, got 'attn_z'"):
        collect_examples(tiny, PAIRS, NEURONS, site=cast(Any, "attn_z"))
    with pytest.raises(InputError, match="where must be one of"):
        collect_examples(tiny, PAIRS, NEURONS, where=cast(Any, "prompt"))
    with pytest.raises(InputError, match="neuron must be in"):
        collect_examples(tiny, PAIRS, NeuronSet([(0, 48)]))


def test_activations_that_float16_cannot_hold_are_float32():
    model = tiny_reward_model()
    assert collect_examples(model, PAIRS[:2], NEURONS).activation.dtype == torch.float16
    model.blocks[1].mlp.W_in.data *= 1e6
    found = collect_examples(model, PAIRS[:2], NEURONS)
    assert found.activation.dtype == torch.float32 and found.activation.abs().max() > 1e5 and found.activation.isfinite().all()


HOSTILE = "</script><script>alert('x')</script> & \"né 🙂\" \x00 {{7*7}}"


def test_examples_of_other_neurons_add_to_a_run(tiny):
    shown = ([(1, 7)], [(0, 3)], [(0, i) for i in range(4)], [(0, i) for i in range(1, 5)])
    runs = [Results() for _ in shown]
    for run, coords in zip(runs, shown, strict=True):
        record_examples(run, "tiny", "some", collect_examples(tiny, PAIRS[:2], NeuronSet(coords)))
    names = list(Results.merge(runs).section("examples"))
    assert len(set(names)) == 4 and names[0] == "tiny · some, response tokens at mlp_post: 1.7"


def test_the_record_holds_it_all(tiny, tmp_path):
    pairs = [*PAIRS, said("<b>", HOSTILE, HOSTILE, "No.", "helpful")]
    found = collect_examples(tiny, pairs, NEURONS, unembedding=tiny.W_E.T)
    results = Results()
    record_examples(results, "tiny", "some", found)
    loaded = Results.load(results.save(tmp_path / "run"))
    (name,) = loaded.section("examples")
    entry = loaded.entry("examples", name)
    assert name.startswith(f"tiny · some, response tokens at mlp_post: {len(NEURONS)} neurons ")
    assert entry["neurons"] == NEURONS.to_json() and entry["site"] == "mlp_post" and entry["where"] == "response"
    assert entry["kinds"] == ["top"] * 5 + ["75 %", "50 %", "25 %"] + ["random"] * 2
    assert entry["pairs"] == len(pairs) == len(entry["pair_hashes"]) and entry["tokens"] == found.tokens
    assert entry["splits"][0] == {"objective": "", "side": "chosen", "transcripts": 4}
    hostile = next(each for each in entry["transcripts"] if each["pairs"] == ["<b>"] and each["sides"] == ["chosen"])
    assert "".join(hostile["tokens"]).count(HOSTILE) == 2 and "🙂" in hostile["tokens"] and hostile["objectives"] == ["helpful"]
    shared = next(each for each in entry["transcripts"] if each["pairs"] == ["group/0-0", "group/0-1"])
    assert shared["sides"] == ["chosen"] * 2 and shared["objectives"] == ["", ""]
    assert "".join(shared["tokens"][shared["response_start"] :]).strip() == "Yes!"

    def tensor(key, kind, shape):
        value = loaded.tensor("examples", name, key)
        assert (value.dtype, tuple(value.shape)) == (kind, shape), key
        return value

    i32, i64, f32, n = torch.int32, torch.int64, torch.float32, len(NEURONS)
    top, index = tensor("top/transcript", i32, (5, 2, 48)), tensor("shown/transcript", i32, (n, 10))
    assert int(max(top.max(), index.max())) == len(entry["transcripts"]) - 1
    start, flat = tensor("shown/start", i64, (n, 10)), loaded.tensor("examples", name, "shown/activation")
    lengths = [len(entry["transcripts"][i]["tokens"]) for i in index.flatten().tolist()]
    assert flat.dtype == torch.float16 and start.flatten().tolist() == [sum(lengths[:i]) for i in range(len(lengths))]
    assert len(flat) == sum(lengths)
    for key, kind, shape in (
        ("top/peak", f32, (5, 2, 48)),
        ("shown/peak", f32, (n, 10)),
        ("histogram/edge", f32, (n, 41)),
        ("histogram/count", i32, (n, 6, 40)),
        ("correlated/neuron", i32, (n, 5)),
        ("correlated/value", f32, (n, 5)),
        ("cosine/neuron", i32, (n, 5, 2)),
        ("cosine/value", f32, (n, 5)),
    ):
        tensor(key, kind, shape)
    words = entry["words_out"]
    assert words is not None and entry["words_in_of"] == "gate" and len(entry["words_in"]) == n == len(words)
    token, value = words[0]["lowered"][0]
    assert (
        found.words_out is not None
        and isinstance(token, str)
        and value == pytest.approx(float(found.words_out.lowered.value[0, 0]))
        and value < 0
    )
    assert len(entry["words_in"][0]) == len(words[0]["raised"]) == 10
    json.dumps(loaded.sections)


def test_the_text_of_tokens_that_a_tokenizer_lacks():
    assert token_text(300, byte_tokenizer()) == "[300]" and token_text(3, None) == "[3]"
    assert token_text(0, byte_tokenizer()) == "<end>"


def run_with(tiny):
    """A run with each kind of ranking."""
    results = Results()
    record_discovery(results, "m", "d", discover(tiny, PAIRS, sites=["attn_z", "mlp_post"]))
    up = torch.arange(96.0).view(2, 48)
    shared = {"model": "m", "site": "mlp_gate"}
    put(results, "tension", "m · d", shared | {"objectives": ["a", "b"]}, {"a/effect": up, "b/effect": -up.flip(0, 1)})
    heads = {"model": "m", "site": "attn_z", "objectives": ["a"]}
    put(results, "tension", "m · heads", heads, {"a/effect": torch.full((2, 4), 1e9)})
    exact = [{"neurons": [[0, 17]]}, {"neurons": [[0, 1], [0, 2]]}]
    put(results, "attribution", "m · d", shared | {"methods": {"gradient": {}}, "exact": exact[:1]}, {"gradient/effect": up})
    put(results, "effects", "m · d, zero", shared | {"effects": [*exact, {"neurons": [[0, 21]]}]})
    put(results, "effects", "m · heads, zero", heads | {"effects": [{"neurons": [[1, 3]]}]})
    put(results, "effects", "other · d, zero", {"model": "other", "site": "mlp_post", "effects": [{"neurons": [[0, 5]]}]})
    return results


def test_neurons_to_show(tiny):
    results = run_with(tiny)
    assert neurons_to_show(results, "m", most=1).coords == ((0, 17),)
    mean = results.tensor("discovery", "m", "mlp_post/mean").mean(0)
    loudest = NeuronSet.top(mean, k=1).coords[0]
    # By |effect|: 47 of layer 1 is first up, 0 of layer 0 first once flipped; the attribution's first is there already.
    assert neurons_to_show(results, "m", most=5) == NeuronSet([(0, 17), (0, 21), (1, 47), (0, 0), loudest])
    assert len(neurons_to_show(results, "m", most=20)) == 20 and len(neurons_to_show(results, "m")) == 96
    assert neurons_to_show(results, "other").coords == ((0, 5),)
    with pytest.raises(InputError, match="holds no MLP neurons of 'none'; it has discovery of m"):
        neurons_to_show(results, "none")
    with pytest.raises(InputError, match="most must be at least 1"):
        neurons_to_show(results, "m", most=0)


def test_the_command(tmp_path, tiny, monkeypatch, capsys):
    tiny_hf_model().save_pretrained(tmp_path / "model")
    byte_tokenizer().save_pretrained(tmp_path / "model")
    ranked = Results()
    record_discovery(ranked, "m", "d", discover(tiny, PAIRS))
    ranked.save(tmp_path / "ranked")
    rows = [{"id": f"r{i}", "prompt": f"Question {i}", "chosen": "Yes!", "rejected": "No."} for i in range(4)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))

    def command(out, **given):
        return ExamplesCommand(
            str(tmp_path / "model"), Output(tmp_path / out), Data((str(tmp_path / "rows.jsonl"),)), Running(device="cpu"), **given
        )

    for given in ({}, {"neurons": ("0.3",), "ranking": tmp_path / "ranked"}):
        with pytest.raises(InputError, match="give either --neurons or --ranking"):
            command("none", **given).run()
    with pytest.raises(InputError, match="holds no MLP neurons of 'model'"):
        command("none", ranking=tmp_path / "ranked").run()
    # Cut in the last pass, and then while the run is written: the state stays.
    for owner, name in ((passes.Details, "end"), (store, "save_file")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, interrupted)
            with pytest.raises(KeyboardInterrupt):
                command("out", neurons=("0.3", "1.7")).run()
        assert (tmp_path / "out.partial").is_file() and not (tmp_path / "out").exists()
    assert (tmp_path / "out.partial").is_file() and not (tmp_path / "out").exists()
    capsys.readouterr()
    command("out", neurons=("0.3", "1.7")).run()
    assert "pass 1" not in capsys.readouterr().err and not (tmp_path / "out.partial").exists()
    (entry,) = Results.load(tmp_path / "out").section("examples").values()
    assert entry["neurons"] == [[0, 3], [1, 7]] and entry["words_out"] is None and math.isfinite(entry["transcripts"][0]["reward"])
    # Cut after the run was written, it is finished; a state that is newer is of a run that is to replace it.
    for state, kept in ((0, False), (2**40, True)):
        (tmp_path / "out.partial").touch()
        os.utime(tmp_path / "out.partial", (state, state))
        with pytest.raises(InputError, match="exists"):
            command("out", neurons=("0.3", "1.7")).run()
        assert (tmp_path / "out.partial").exists() == kept
