"""Transcripts to token batches: what the model sees, and where its reward is read."""

from dataclasses import replace

import pytest
import torch
from helpers.tiny_tokenizers import BOS, byte_tokenizer

from tl_reward.analyses.pair_patching import patch_pairs
from tl_reward.data.batches.padding import batches
from tl_reward.data.encoding import EndAt, Row, encode, encode_pairs
from tl_reward.data.pairs import Message, PreferencePair, Transcript
from tl_reward.data.text import TEMPLATE_DATE, render
from tl_reward.errors import InputError
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.running.scoring import score

VARIANTS = [(bos, chat) for bos in (False, True) for chat in (False, True)]
TALK: Transcript = (
    Message("user", "Hi."),
    Message("assistant", "Hello."),
    Message("user", "Is it 5 °C?"),
    Message("assistant", "Yes, it is."),
)


@pytest.fixture(params=VARIANTS, ids=lambda variant: f"bos={variant[0]}-chat={variant[1]}")
def tokenizer(request: pytest.FixtureRequest):
    return byte_tokenizer(*request.param)


def answers(*texts: str, group: str | None = None) -> list[PreferencePair]:
    """Pairs of the same prompt; each text is a chosen answer beside the rejected "no"."""
    return [
        PreferencePair(f"{group or 'pair'}-{i}", (Message("user", "Hi"), Message("assistant", text)), NO, group=group)
        for i, text in enumerate(texts)
    ]


NO: Transcript = (Message("user", "Hi"), Message("assistant", "no"))
PROMPT = "\n\nHuman: Hi\n\nAssistant:"  # a token a character


# What the model sees


def test_text_without_a_chat_template():
    system = (Message("system", "Be brief."), *TALK[:2])
    assert render(system, byte_tokenizer()).text == "Be brief.\n\nHuman: Hi.\n\nAssistant: Hello."


def test_text_with_a_chat_template():
    rendered = render(TALK[:2], byte_tokenizer(chat=True))
    assert rendered.text == "<s>[user]Hi.</s>[assistant]Hello.</s>"
    assert rendered.text[rendered.response_start :] == "Hello.</s>"


@pytest.mark.parametrize(("bos", "chat"), VARIANTS)
def test_beginning_token_is_there_once_where_anything_writes_it(bos: bool, chat: bool):
    tokenizer = byte_tokenizer(bos, chat)
    ids = encode([TALK], tokenizer)[0].ids
    assert ids.count(tokenizer.bos_token_id) == (1 if bos or chat else 0)
    assert (ids[0] == tokenizer.bos_token_id) == (bos or chat)


def test_tokens_spell_the_text(tokenizer):
    text = render(TALK, tokenizer).text
    assert tokenizer.decode(encode([TALK], tokenizer)[0].ids).removeprefix(BOS) == text.removeprefix(BOS)


def test_template_that_rewrites_earlier_turns():
    # As templates do that leave out the thinking of earlier turns: the text of the prompt alone is then no prefix of the whole.
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = (
        "{% if add_generation_prompt %}(open){% endif %}{% for m in messages %}[{{ m.role }}]{{ m.content }}\n{% endfor %}"
    )
    twice = (Message("user", "Say ok"), Message("assistant", "ok"), Message("user", "again: ok"), Message("assistant", "ok"))
    rendered = render(twice, tokenizer)
    assert rendered.text[: rendered.response_start].endswith("again: ok\n[assistant]")
    assert rendered.text[rendered.response_start :] == "ok\n"


# Read-out and masks


def test_readout_is_the_last_real_token_although_pad_equals_end(tokenizer):
    pairs = answers("yes", "a longer answer")
    encoded = encode_pairs(pairs, tokenizer, max_length=200)
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    (batch,) = batches(encoded.rows, max_tokens=10**6, pad_id=tokenizer.pad_token_id)
    for line, row in enumerate(batch.row.tolist()):
        ids = encoded.rows[row].ids
        assert batch.readout[line] == len(ids) - 1
        assert batch.tokens[line, batch.readout[line]] == ids[-1]
        # With the chat template that last token is the end token, the very one that pads.
        assert (ids[-1] == tokenizer.pad_token_id) == (tokenizer.chat_template is not None)


def test_response_mask_covers_the_last_assistant_turn(tokenizer):
    short = TALK[:2]
    rows = encode([TALK, short], tokenizer)
    (batch,) = batches(rows, max_tokens=10**6)
    expected = {0: "Yes, it is.</s>", 1: "Hello.</s>"} if tokenizer.chat_template else {0: " Yes, it is.", 1: " Hello."}
    found = {row: tokenizer.decode(batch.tokens[line, batch.response_mask[line]]) for line, row in enumerate(batch.row.tolist())}
    assert found == expected


def test_response_mask_of_a_turn_that_says_nothing():
    (batch,) = batches(encode([(Message("user", "Hi"), Message("assistant", ""))], byte_tokenizer()), max_tokens=1)
    assert batch.response_mask[0].nonzero().flatten().tolist() == batch.readout.tolist()


def test_masks_and_padding():
    encoded = encode_pairs(answers("yes", "a longer answer"), byte_tokenizer(), max_length=200)
    (batch,) = batches(encoded.rows, max_tokens=10**6, pad_id=99)
    width = len(PROMPT) + len(" a longer answer")
    lengths = [width, len(PROMPT) + len(" yes"), len(PROMPT) + len(" no")]
    assert batch.tokens.shape == (3, width)
    positions = torch.arange(width)
    for line, length in enumerate(lengths):
        assert torch.equal(batch.attention_mask[line], positions < length)
        assert torch.equal(batch.response_mask[line], (positions >= len(PROMPT)) & (positions < length))
        assert (batch.tokens[line, length:] == 99).all()


# Batches


def many_rows() -> list[Row]:
    """16 different rows; some are of one length."""
    answers = ["x" * n for n in (5, 30, 1, 17, 17, 9, 30, 2)] + ["no"] * 8
    return encode([(Message("user", chr(ord("a") + i)), Message("assistant", x)) for i, x in enumerate(answers)], byte_tokenizer())


@pytest.mark.parametrize("max_tokens", [1, 100, 333, 10_000])
def test_batches_cover_each_row_once_longest_first_within_the_budget(max_tokens: int):
    rows = many_rows()
    made = list(batches(rows, max_tokens=max_tokens))
    order = [row for batch in made for row in batch.row.tolist()]
    assert sorted(order) == list(range(16))
    lengths = [len(rows[row].ids) for row in order]
    assert lengths == sorted(lengths, reverse=True)
    for batch in made:
        assert batch.tokens.numel() <= max_tokens or len(batch.tokens) == 1
    for batch in made[:-1]:  # one more row would not have fitted
        assert batch.tokens.numel() + batch.tokens.shape[1] > max_tokens


@pytest.mark.parametrize("max_tokens", [1, 100, 333, 10_000])
def test_tokens_of_a_row_do_not_depend_on_the_budget(max_tokens: int):
    rows = many_rows()
    for batch in batches(rows, max_tokens=max_tokens):
        for line, row in enumerate(batch.row.tolist()):
            real = batch.attention_mask[line]
            assert tuple(batch.tokens[line, real].tolist()) == rows[row].ids
            assert batch.response_mask[line].nonzero()[0].item() == rows[row].response_start
            assert batch.readout[line] == real.sum() - 1


def test_batch_moves_with_all_its_fields():
    (batch,) = batches(many_rows(), max_tokens=10**6)
    moved = batch.to("meta")
    assert {getattr(moved, name).device.type for name in moved.__dataclass_fields__ if name != "lengths"} == {"meta"}
    assert moved.lengths == batch.lengths


# Pairs


def test_identical_transcripts_are_one_row(tokenizer):
    encoded = encode_pairs(answers("yes", "sure", "yes"), tokenizer, max_length=200)
    assert len(encoded.rows) == 3
    assert encoded.chosen[0] == encoded.chosen[2] != encoded.chosen[1]
    assert len(set(encoded.rejected)) == 1


def test_chosen_and_rejected_point_at_their_rows(tokenizer):
    pairs = answers("yes", "sure", "fine")
    encoded = encode_pairs(pairs, tokenizer, max_length=200)
    for pair, chosen, rejected in zip(pairs, encoded.chosen, encoded.rejected, strict=True):
        assert encoded.rows[chosen] == encode([pair.chosen], tokenizer)[0]
        assert encoded.rows[rejected] == encode([pair.rejected], tokenizer)[0]


# Overlong. With " x" as answer a row is as long as PROMPT and 2 more.

LIMIT = len(PROMPT) + 5


@pytest.mark.parametrize(("answer", "dropped"), [("x" * 4, 0), ("x" * 5, 1)])
def test_limit_is_the_longest_that_is_kept(answer: str, dropped: int):
    assert encode_pairs(answers("yes", answer), byte_tokenizer(), max_length=LIMIT).dropped == dropped


def test_drop_leaves_out_pairs_and_their_rows():
    encoded = encode_pairs(answers("yes", "much too long", "sure"), byte_tokenizer(), max_length=LIMIT)
    assert [pair.id for pair in encoded.pairs] == ["pair-0", "pair-2"]
    assert encoded.dropped == 1
    assert sorted({*encoded.chosen, *encoded.rejected}) == [0, 1, 2] == list(range(len(encoded.rows)))
    assert max(len(row.ids) for row in encoded.rows) <= LIMIT


def test_drop_takes_out_whole_best_of_n_rows():
    # With a part of its pairs a row would be easier to get right.
    pairs = [*answers("yes", "much too long", "sure", group="a"), *answers("fine", group="b"), *answers("well")]
    encoded = encode_pairs(pairs, byte_tokenizer(), max_length=LIMIT)
    assert [pair.id for pair in encoded.pairs] == ["b-0", "pair-0"]
    assert encoded.dropped == 3


def test_drop_with_nothing_left():
    with pytest.raises(InputError, match=r"every one of 2 pairs is longer than 5 tokens"):
        encode_pairs(answers("yes", "sure"), byte_tokenizer(), max_length=5)


def test_error_says_how_many_and_which():
    with pytest.raises(InputError, match=rf"2 pairs are longer than {LIMIT} tokens, the first is pair-1"):
        encode_pairs(answers("yes", "much too long", "and this one"), byte_tokenizer(), max_length=LIMIT, overlong="error")


def test_error_stays_silent_where_all_fits():
    assert encode_pairs(answers("yes"), byte_tokenizer(), max_length=LIMIT, overlong="error").dropped == 0


@pytest.mark.parametrize("limit", [12, 20, 30])
def test_left_keeps_the_end_and_the_beginning_token(tokenizer, limit: int):
    (pair,) = answers("a rather long answer")
    whole, other = encode([pair.chosen, pair.rejected], tokenizer)
    encoded = encode_pairs([pair], tokenizer, max_length=limit, overlong="left")
    cut = encoded.rows[encoded.chosen[0]]
    has_bos = whole.ids[0] == tokenizer.bos_token_id
    assert encoded.dropped == 0
    assert cut.ids == ((whole.ids[0], *whole.ids[-(limit - 1) :]) if has_bos else whole.ids[-limit:])
    # The response mask still covers the answer, or what is left of it, and never the beginning token.
    response = len(whole.ids) - whole.response_start
    assert len(cut.ids) - cut.response_start == min(response, limit - has_bos)
    assert encoded.rows[encoded.rejected[0]].ids[-2:] == other.ids[-2:]


def test_left_leaves_rows_that_fit():
    pairs = answers("yes", "much too long")
    encoded = encode_pairs(pairs, byte_tokenizer(), max_length=LIMIT, overlong="left")
    assert encoded.rows[encoded.chosen[0]] == encode([pairs[0].chosen], byte_tokenizer())[0]
    assert len(encoded.rows[encoded.chosen[1]].ids) == LIMIT


# What the model reads as equal

TRIMS = "{% for m in messages %}[{{ m.role }}]{{ m.content | trim }}\n{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"


def test_sides_that_a_template_trims_to_the_same_text_are_one_row():
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = TRIMS
    encoded = encode_pairs(answers("no ", "yes"), tokenizer, max_length=200)
    assert encoded.chosen[0] == encoded.rejected[0] == encoded.rejected[1]
    assert encoded.equal == (0,) and encoded.reading.noted == {"read as equal": 1}


def test_sides_that_are_cut_to_the_same_tokens_are_one_row():
    encoded = encode_pairs(answers("yes, no"), byte_tokenizer(), max_length=3, overlong="left")
    assert encoded.chosen == encoded.rejected == (0,) and len(encoded.rows) == 1
    assert encoded.apart().equal == (0,)


def test_one_text_of_two_ways_to_split_it_is_one_row_too():
    # Where the answer begins is then not certain: the earlier place is taken.
    long = (Message("user", "Hi\n\nAssistant: no\n\nHuman: a"), Message("assistant", "b"))
    short = (Message("user", "Hi"), Message("assistant", "no\n\nHuman: a\n\nAssistant: b"))
    encoded = encode_pairs([PreferencePair("a", long, short)], byte_tokenizer(), max_length=200)
    assert len(encoded.rows) == 1 and encoded.rows[0].response_start == len(PROMPT)
    # But in pairs of their own each keeps its response.
    apart = encode_pairs([PreferencePair("a", long, NO), PreferencePair("b", short, NO)], byte_tokenizer(), max_length=200)
    assert len(apart.rows) == 3


@pytest.mark.parametrize("max_tokens", [None, 300])
def test_margin_of_sides_that_are_read_as_equal_is_exactly_zero(max_tokens: int | None, tiny: HookedRewardModel):
    pairs = [*answers("yes, it is no", "well, yes", group="a"), *answers("so no", group="b")]
    scores = score(tiny, pairs, max_length=3, overlong="left", max_tokens=max_tokens)
    assert scores.margin.tolist()[0] == scores.margin.tolist()[2] == 0.0 != scores.margin[1]
    assert scores.reading is not None and scores.reading.noted["read as equal"] == 2
    patched = patch_pairs(tiny, pairs[:1], kinds=["mlp_out"], max_length=3, overlong="left")  # there each side has a row of its own
    assert patched.clean.margin.tolist() == [0.0] and patched.clean.accuracy().value == 0.5


# Templates that refuse, and templates that ask for the date


def test_pair_that_a_template_refuses_is_named_and_can_be_left_out():
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = "{% if messages[-1].content == 'bad' %}{{ raise_exception('not this') }}{% endif %}" + TRIMS
    pairs = [replace(pair, where=f"file:{line}") for line, pair in enumerate(answers("yes", "bad", "much too long to read"), 1)]
    with pytest.raises(InputError, match=r"^file:2: pair pair-1: chosen: the tokenizer's chat template refused a transcript: not this"):
        encode_pairs(pairs, tokenizer, max_length=30)
    encoded = encode_pairs(pairs, tokenizer, max_length=30, on_bad="drop")
    assert encoded.reading.left_out == {"refused by the tokenizer's chat template": 1, "longer than 30 tokens (max_length)": 1}
    assert [pair.id for pair in encoded.pairs] == ["pair-0"] and encoded.dropped == 2


def test_today_is_a_fixed_date_for_a_template():
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = "\nToday: {{ strftime_now('%d %b %Y') }} {{ strftime_now('%Y-%m-%-d') }}\n" + TRIMS
    assert render(NO, tokenizer).text.startswith("\nToday: 26 Jul 2024 2024-07-26\n[user]Hi")
    assert encode_pairs(answers("yes"), tokenizer, max_length=200).reading.template_date == str(TEMPLATE_DATE) == "2024-07-26"
    tokenizer.chat_template = TRIMS
    assert encode_pairs(answers("yes"), tokenizer, max_length=200).reading.template_date is None


def test_answer_without_a_prompt():
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = TRIMS
    rendered = render((Message("assistant", "Hello."),), tokenizer)
    assert rendered.text[rendered.response_start :] == "Hello.\n"


STEP = 5  # "%", which no text here has


def test_a_mark_in_an_earlier_turn_is_no_step_of_the_answer():
    tokenizer = byte_tokenizer(False, False)
    mark = str(tokenizer.decode([STEP]))
    talk = (Message("user", "Hi"), Message("assistant", f"One{mark}"), Message("user", "And?"))
    good = PreferencePair("good", (*talk, Message("assistant", f"Two{mark} and more")), (*talk, Message("assistant", f"No{mark}")))
    found = encode_pairs([good], tokenizer, max_length=500, end=EndAt(STEP, appended=False))
    for row, answer in zip(found.rows, ("Two", "No"), strict=True):
        assert row.ids[-1] == STEP and str(tokenizer.decode(list(row.ids[row.response_start :]))).strip() == answer + mark
    bad = replace(good, id="bad", rejected=(*talk, Message("assistant", "No")))
    with pytest.raises(
        InputError, match=r"pair bad: rejected: this model reads rewards at the token .*, which ends a step, and the answer has none"
    ):
        encode_pairs([good, bad], tokenizer, max_length=500, end=EndAt(STEP, appended=False))
    kept = encode_pairs([good, bad], tokenizer, max_length=500, end=EndAt(STEP, appended=False), on_bad="drop")
    assert [pair.id for pair in kept.pairs] == ["good"] and kept.dropped == 1
    with pytest.raises(InputError, match="and the answer has none"):
        encode([bad.rejected], tokenizer, end=EndAt(STEP, appended=False))


def test_pad_tokens_before_an_appended_one_stay():
    """The appended token sees them, wherever the read-out would pass over pad tokens at the end."""
    tokenizer = byte_tokenizer(False, False)
    pad = tokenizer.convert_tokens_to_ids(str(tokenizer.pad_token))
    assert isinstance(pad, int)
    talk = (Message("user", "Hi"), Message("assistant", f"Yes{tokenizer.pad_token}"))
    (row,) = encode([talk], tokenizer, unread=pad, end=EndAt(STEP, appended=True))
    assert row.ids[-2:] == (pad, STEP)
    assert encode([talk], tokenizer, unread=pad)[0].ids == row.ids[:-2]


def test_some_of_the_pairs_know_how_they_were_encoded():
    tokenizer = byte_tokenizer(False, False)
    found = encode_pairs(answers("a", "b"), tokenizer, max_length=50)
    assert found.take([1]).how == found.how is not None
