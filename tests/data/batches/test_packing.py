"""A prefix that transcripts share is there once, and every number is that of the transcripts one by one."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from helpers.short_pairs import embedded_pairs

from tl_reward.data.batches.packing import Span, pack
from tl_reward.data.encoding import Row
from tl_reward.interventions.ablations import ZeroAblation
from tl_reward.neurons import NeuronSet
from tl_reward.running.batches.batching import encode_for
from tl_reward.running.scoring import score

PAIRS = embedded_pairs("find", 8)


def rows_of(*texts: str) -> list[Row]:
    return [Row(tuple(map(ord, text)), 0) for text in texts]


def test_a_shared_prefix_is_packed_once():
    (batch,) = pack(rows_of("abX", "abcYY", "abcZ"), max_tokens=100)
    assert "".join(map(chr, batch.tokens[0])) == "abXcYYZ"
    assert batch.position.tolist() == [0, 1, 2, 2, 3, 4, 3]
    assert batch.row.tolist() == [0, 1, 2]
    assert batch.spans == ((Span(0, 3),), (Span(0, 2), Span(3, 6)), (Span(0, 2), Span(3, 4), Span(6, 7)))
    assert batch.readout.tolist() == [2, 5, 6]
    assert batch.occurrences(torch.tensor([[1.0, 10.0, 100.0]])).tolist() == [[111, 111, 1, 110, 10, 10, 100]]
    assert batch.allowed(0, None) is None
    mask = batch.allowed(1, None)
    assert mask is not None and mask.tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]
    mask = batch.allowed(2, 2)
    assert mask is not None and mask.tolist() == [[0, 0, 1, 1]]
    assert batch.longest == 5


def test_a_row_that_is_the_beginning_of_another_has_its_last_token_to_itself():
    (batch,) = pack(rows_of("abc", "ab"), max_tokens=100)
    assert "".join(map(chr, batch.tokens[0])) == "abbc"
    assert (batch.row.tolist(), batch.readout.tolist()) == ([1, 0], [1, 3])
    assert batch.spans == ((Span(0, 2),), (Span(0, 1), Span(2, 4)))


def test_no_token_is_in_a_response_and_in_a_prompt():
    one, longer, other = Row(tuple(b"qRRR"), 1), Row(tuple(b"qRRRqXY"), 5), Row(tuple(b"qRRZ"), 1)
    (batch,) = pack([one, longer, other], max_tokens=100)
    for i, row in enumerate(batch.row.tolist()):
        places, start = batch.places(i), [one, longer, other][row].response_start
        assert batch.response[places].tolist() == [False] * start + [True] * (len(places) - start)
        assert batch.at("response")[0, places].tolist() == batch.response[places].tolist()
    assert batch.at("readout")[0].nonzero()[:, 0].tolist() == sorted(batch.readout.tolist())
    assert len(set(batch.readout.tolist())) == 3 and batch.at("all").all()


@pytest.mark.parametrize("max_tokens", [1, 120, 300, 10**6])
def test_every_row_can_be_read_back_and_no_batch_exceeds_its_budget(tiny, max_tokens):
    rows = encode_for(tiny, PAIRS).rows
    batches = list(pack(rows, max_tokens=max_tokens))
    assert sorted(row for batch in batches for row in batch.row.tolist()) == list(range(len(rows)))
    for batch in batches:
        tokens = batch.tokens[0].tolist()
        assert len(tokens) <= max_tokens or len(batch.row) == 1
        for row, spans, readout in zip(batch.row.tolist(), batch.spans, batch.readout.tolist(), strict=True):
            places = [i for start, end in spans for i in range(start, end)]
            assert tuple(tokens[i] for i in places) == rows[row].ids
            assert batch.position[places].tolist() == list(range(len(places)))
            assert places[-1] == readout
        prefixes = {rows[row].ids[: i + 1] for row in batch.row.tolist() for i in range(len(rows[row].ids))}
        assert len(tokens) == len(prefixes)  # nothing is there twice


@dataclass(frozen=True)
class OneTranscriptARow:
    """An edit that does not promise `per_token`, and so runs on the plain path."""

    edits: tuple = ()

    def hooks(self, batch):
        assert len(batch.tokens) == len(batch.row)
        return [pair for edit in self.edits for pair in edit.hooks(batch)]


@pytest.mark.parametrize("max_tokens", [150, 1200])
def test_rewards_equal_the_plain_path_with_and_without_an_edit(hooked, max_tokens):
    layers = range(hooked.cfg.n_layers)
    for edits in ((), (ZeroAblation(NeuronSet((layer, 3 * layer + i) for layer in layers for i in range(9))),)):
        plain = score(hooked, PAIRS, interventions=[OneTranscriptARow(edits)], max_length=512)
        packed = score(hooked, PAIRS, interventions=edits, max_tokens=max_tokens, max_length=512)
        assert packed.chosen == pytest.approx(plain.chosen, abs=1e-4)
        assert packed.rejected == pytest.approx(plain.rejected, abs=1e-4)
        assert np.median(abs(packed.margin)) > 1e-3


def test_the_tokens_of_a_packed_batch_are_computed_once(tiny):
    encoded = encode_for(tiny, PAIRS)
    seen = []
    with tiny.hooks(fwd_hooks=[("blocks.0.hook_resid_pre", lambda a, hook: seen.append(a.shape[0] * a.shape[1]))]):
        score(tiny, encoded)
        listening = sum(seen)  # somebody listens: one transcript a row
    assert listening >= sum(len(row.ids) for row in encoded.rows)
    forward, calls = tiny.blocks[0].forward, []
    tiny.blocks[0].forward = lambda x, *a, **k: calls.append(x.shape[1]) or forward(x, *a, **k)
    try:
        score(tiny, encoded)
    finally:
        tiny.blocks[0].forward = forward
    packed = sum(batch.tokens.numel() for batch in pack(encoded.rows, max_tokens=1024))
    assert sum(calls) == packed < 0.95 * listening


def test_gradients_at_shared_tokens_are_the_sum_over_the_transcripts(hooked):
    rows = encode_for(hooked, PAIRS[:2], max_length=512).rows
    (batch,) = pack(rows, max_tokens=10**6)
    packed = hooked(batch.tokens, None, attention_mask=batch, stop_at_layer=0).requires_grad_()
    hooked(packed, attention_mask=batch, start_at_layer=0).sum().backward()
    expected = torch.zeros_like(packed[0])
    for row, spans in zip(batch.row.tolist(), batch.spans, strict=True):
        single = hooked(torch.tensor([rows[row].ids]), None, stop_at_layer=0).requires_grad_()
        hooked(single, start_at_layer=0).sum().backward()
        expected[[i for start, end in spans for i in range(start, end)]] += single.grad[0]
    torch.testing.assert_close(packed.grad[0], expected, atol=1e-4, rtol=1e-3)


def test_a_row_counts_as_often_as_its_pairs(tiny):
    from tl_reward.data.pairs import pairs_of_row
    from tl_reward.running.activations import side_weights

    row = {"prompt": "Hi", "chosen": ["Hello there!", "Good day."], "rejected": ["No."]}
    encoded = encode_for(tiny, pairs_of_row(row, "a:1"))  # 2 pairs; the rejected transcript is one row, and counts twice
    (batch,) = pack(encoded.rows, max_tokens=10**6)
    lengths = [len(encoded.rows[i].ids) for i in (*encoded.chosen, encoded.rejected[0])]
    assert side_weights(encoded, batch).sum(2).tolist() == [[lengths[0] + lengths[1], 2 * lengths[2]]]
    for i, index in enumerate(batch.row.tolist()):
        assert tuple(batch.tokens[0, batch.places(i)].tolist()) == encoded.rows[index].ids


def test_a_layer_with_own_inputs_for_each_head_gives_the_same_rewards(tiny):
    before = score(tiny, PAIRS).chosen
    tiny.set_use_split_qkv_input(True)
    try:
        assert score(tiny, PAIRS).chosen == pytest.approx(before, abs=1e-5)
    finally:
        tiny.set_use_split_qkv_input(False)
