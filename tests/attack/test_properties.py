"""What holds of all pairs, packings and sets, tried on random ones: packed equals plain, order and batch do not matter, sets obey set
algebra, what is saved is what is loaded."""

import itertools
import json
from random import Random

import numpy as np
import pytest
import torch
from helpers.attack import tries
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tl_reward.data.alignment import align, partners
from tl_reward.data.batches.packing import pack, shared_prefix
from tl_reward.data.batches.padding import batches
from tl_reward.data.encoding import EncodedPairs, Row, encode, encode_pairs
from tl_reward.data.pairs import Message, PreferencePair, Role, Transcript, pairs_of_row
from tl_reward.data.reading import Reading
from tl_reward.measures.intervals import Estimate, bootstrap_mean
from tl_reward.model.tiny import byte_tokenizer, tiny_reward_model
from tl_reward.neurons import NeuronSet
from tl_reward.running.scoring import score

few = settings(
    max_examples=tries(6, 100),
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow, HealthCheck.data_too_large],
    database=None,
    print_blob=True,
)
many = settings(few, max_examples=tries(40, 1000))

TOKENIZER, MODEL = byte_tokenizer(), tiny_reward_model()
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ["", "a", "ab", "abc", "abcd", "<end>", "\n\nHuman: a"]
)
ROLES: tuple[Role, ...] = ("system", "user", "assistant")
roles = st.sampled_from(ROLES)


@st.composite
def transcripts(draw: st.DrawFn, prompts: int = 2) -> Transcript:
    turns = draw(st.lists(st.tuples(roles, texts), max_size=prompts))
    return (*(Message(role, text) for role, text in turns), Message("assistant", draw(texts)))


@st.composite
def some_pairs(draw: st.DrawFn, most: int = 5) -> list[PreferencePair]:
    """Pairs that often share prompts, or whole transcripts; one answer may be a prefix of the other."""
    pool = draw(st.lists(st.lists(st.tuples(roles, texts), max_size=2), min_size=1, max_size=2))
    made = []
    for i in range(draw(st.integers(1, most))):
        prompt = tuple(Message(role, text) for role, text in draw(st.sampled_from(pool)))
        one, other = draw(st.tuples(texts, texts).filter(lambda sides: sides[0] != sides[1]))
        made.append(PreferencePair(f"p{i}", (*prompt, Message("assistant", one)), (*prompt, Message("assistant", other))))
    return made


@st.composite
def token_rows(draw: st.DrawFn) -> list[Row]:
    """Rows of few kinds of tokens, so that prefixes are shared."""
    ids = draw(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=9), min_size=1, max_size=8))
    return [Row(tuple(each), draw(st.integers(0, len(each) - 1))) for each in ids]


neurons = st.sets(st.tuples(st.integers(0, 3), st.integers(0, 9)))


@many
@given(transcripts())
def test_encoding_keeps_every_token(transcript: Transcript):
    (row,) = encode([transcript], TOKENIZER)
    text = "".join({"system": "", "user": "\n\nHuman: ", "assistant": "\n\nAssistant: "}[role] + content for role, content in transcript)
    assert list(row.ids) == TOKENIZER(text)["input_ids"]
    assert 0 <= row.response_start < len(row.ids)
    response = TOKENIZER.decode(list(row.ids[row.response_start :]))
    assert response == f" {transcript[-1].content}" or len(row.ids) - row.response_start == 1


@many
@given(some_pairs())
def test_encoded_pairs_are_the_pairs(pairs: list[PreferencePair]):
    encoded = encode_pairs(pairs, TOKENIZER, max_length=10_000)
    assert encoded.pairs == tuple(pairs) and encoded.reading.given == len(pairs) and encoded.reading.left_out == {}
    assert len(set(encoded.rows)) == len(encoded.rows)
    for i, (pair, a, b) in enumerate(zip(pairs, encoded.chosen, encoded.rejected, strict=True)):
        one, other = encode([pair.chosen, pair.rejected], TOKENIZER)
        assert (encoded.rows[a].ids, encoded.rows[b].ids) == (one.ids, other.ids)
        assert (a == b) == (one.ids == other.ids) == (i in encoded.equal)


@many
@given(token_rows(), st.integers(1, 20))
def test_packing_keeps_every_row(rows: list[Row], max_tokens: int):
    made = list(pack(rows, max_tokens=max_tokens))
    assert sorted(row for batch in made for row in batch.row.tolist()) == list(range(len(rows)))
    for batch in made:
        assert batch.tokens.shape[1] <= max_tokens or len(batch.row) == 1
        for i, row in enumerate(batch.row.tolist()):
            places = batch.places(i)
            assert tuple(batch.tokens[0, places].tolist()) == rows[row].ids
            assert batch.position[places].tolist() == list(range(len(rows[row].ids)))
            assert batch.response[places].tolist() == [at >= rows[row].response_start for at in range(len(rows[row].ids))]
            assert batch.readout[i] == places[-1]
        # Each read-out token is of one row alone.
        assert (batch.occurrences(torch.ones(1, len(batch.row)))[0, batch.readout] == 1).all()


@many
@given(token_rows(), st.integers(1, 20), st.integers(0, 3))
def test_padding_keeps_every_row(rows: list[Row], max_tokens: int, pad: int):
    made = list(batches(rows, max_tokens=max_tokens, pad_id=pad))
    assert sorted(row for batch in made for row in batch.row.tolist()) == list(range(len(rows)))
    for batch in made:
        for i, row in enumerate(batch.row.tolist()):
            assert tuple(batch.tokens[i, batch.attention_mask[i]].tolist()) == rows[row].ids  # also where a token is the pad token
            assert batch.tokens[i, batch.readout[i]] == rows[row].ids[-1]


@many
@given(some_pairs(most=3))
def test_alignment_is_a_matching(pairs: list[PreferencePair]):
    encoded = encode_pairs(pairs, TOKENIZER, max_length=10_000)
    if any(shared_prefix(encoded.rows[a], encoded.rows[b]) == 0 for a, b in zip(encoded.chosen, encoded.rejected, strict=True)):
        return  # refused
    apart = encoded.apart()
    for found, a, b in zip(align(encoded), encoded.chosen, encoded.rejected, strict=True):
        assert found.shared + found.aligned + found.chosen_alone == len(encoded.rows[a].ids)
        assert found.shared + found.aligned + found.rejected_alone == len(encoded.rows[b].ids)
        assert found.aligned >= 1 and min(found.chosen_alone, found.rejected_alone) == 0
    for batch in pack(apart.rows, max_tokens=2**30, groups=apart.pair_of_row):
        partner = partners(batch)
        assert torch.equal(partner[partner], torch.arange(len(partner)))  # of two tokens, each is the other's


@few
@given(some_pairs(), st.integers(0, 120), st.randoms(use_true_random=False))
def test_packed_rewards_are_plain_ones_whatever_the_order_and_the_batch(pairs: list[PreferencePair], room: int, random: Random):
    encoded = encode_pairs(pairs, TOKENIZER, max_length=2048)
    longest = max(len(row.ids) for row in encoded.rows)
    packed = score(MODEL, encoded, max_tokens=longest + room)
    shuffled = random.sample(pairs, len(pairs))
    again = score(MODEL, shuffled)
    by_id = {name: (a, b) for name, a, b in zip(again.ids, again.chosen, again.rejected, strict=True)}
    for i, (a, b) in enumerate(zip(encoded.chosen, encoded.rejected, strict=True)):
        plain = [float(MODEL(torch.tensor([encoded.rows[row].ids]))[0]) for row in (a, b)]
        assert (packed.chosen[i], packed.rejected[i]) == pytest.approx(plain, abs=1e-5)
        assert by_id[pairs[i].id] == pytest.approx(plain, abs=1e-5)
        assert a != b or packed.margin[i] == 0


@many
@given(neurons, neurons, neurons)
def test_sets_obey_set_algebra(a: set, b: set, c: set):
    one, two, three = NeuronSet(a), NeuronSet(b), NeuronSet(c)
    assert set(one | two) == a | b and set(one & two) == a & b and set(one - two) == a - b
    assert one | two == two | one and (one | two) & three == (one & three) | (two & three)
    assert one - (two | three) == (one - two) & (one - three)
    assert NeuronSet.from_json(one.to_json()) == NeuronSet.from_mask(one.mask(4, 10)) == one == NeuronSet(sorted(a, reverse=True))
    assert NeuronSet.parse(f"{layer}.{neuron}" for layer, neuron in a) == one
    assert {(layer, n) for layer, each in one.by_layer().items() for n in each.tolist()} == a
    if all(len(each) <= 5 for each in one.by_layer().values()):
        random = one.matched_random(10, seed=len(b))
        assert not one & random and {k: len(v) for k, v in one.by_layer().items()} == {k: len(v) for k, v in random.by_layer().items()}


@many
@given(st.lists(st.sampled_from([-1.0, 0.0, 1.0, 2.0]), min_size=12, max_size=12), st.integers(0, 12))
def test_top_is_the_top(values: list[float], k: int):
    score_of = torch.tensor(values).reshape(3, 4)
    top = NeuronSet.top(score_of, k=k)
    inside = [float(score_of[place]) for place in top]
    outside = [float(score_of[place]) for place in itertools.product(range(3), range(4)) if place not in top]
    assert len(top) == k and (not inside or not outside or min(inside) >= max(outside))


@many
@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.sampled_from("abcde")), min_size=1, max_size=20))
def test_interval_holds_the_mean_of_its_prompts(values: list[tuple[float, str]]):
    numbers, groups = np.array([value for value, _ in values]), [name for _, name in values]
    found = bootstrap_mean(numbers, groups, resamples=50)
    assert found.n == len(set(groups))
    assert (found.n < 2) == (found.to_json()["low"] is None)
    if found.n > 1:
        assert numbers.min() - 1e-6 <= found.low <= found.high <= numbers.max() + 1e-6


@many
@given(st.dictionaries(st.sampled_from("abc"), st.integers(1, 9)), st.dictionaries(st.sampled_from("abc"), st.integers(1, 9)))
def test_readings_add_up_in_any_order(one: dict[str, int], other: dict[str, int]):
    a, b = Reading(100, one), Reading(50, other)
    assert a + b == b + a and (a + b).dropped == a.dropped + b.dropped and Reading(**(a + b).to_json()) == a + b


@many
@given(transcripts(), texts, texts)
def test_a_prompt_is_read_once_however_it_comes(prompt: Transcript, one: str, other: str):
    """As messages beside responses, or in each side too."""
    if not one.strip() or not other.strip() or one == other:
        return
    asked = [message._asdict() for message in (*prompt, Message("user", "So?"))]
    sides = [[{"role": "assistant", "content": text}] for text in (one, other)]
    (apart,) = pairs_of_row({"prompt": asked, "chosen": sides[0], "rejected": sides[1]}, "a")
    (whole,) = pairs_of_row({"prompt": asked, "chosen": asked + sides[0], "rejected": asked + sides[1]}, "a")
    (without,) = pairs_of_row({"chosen": asked + sides[0], "rejected": asked + sides[1]}, "a")
    assert apart == whole == without


@many
@given(st.builds(Estimate, *[st.floats(allow_nan=True, allow_infinity=False)] * 3, st.integers(0, 20)))
def test_estimates_as_json_hold_no_nan(estimate: Estimate):
    json.dumps(estimate.to_json_or_none(), allow_nan=False)
    assert str(estimate).count("[") == 1


def test_masks_of_empty_pairs():
    assert EncodedPairs((), (), (), ()).reading == Reading(0)
