"""What a model is given: TransformerLens' options are taken or refused, and the reward is read where it was asked for."""

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from transformers import AutoModelForSequenceClassification, GPTNeoXConfig

from tl_reward.data.pairs import PreferencePair, pairs_of_row
from tl_reward.errors import InputError, UnknownOption, check_keywords
from tl_reward.model.checkpoints.folders import name_of
from tl_reward.model.inputs import check_tokenizer, tokenise
from tl_reward.model.reward_model import HookedRewardModel, load
from tl_reward.model.tiny import byte_tokenizer, tiny_hf_model, tiny_reward_model
from tl_reward.running.batches.batching import encode_for
from tl_reward.running.scoring import score

LOAD: Any = load  # the type checker refuses what these tests ask for
MODEL: Any = HookedRewardModel
TEXTS = ["Hi", "A longer text, so that the other is padded"]


def test_padding_on_the_left_puts_every_readout_last(tiny):
    reward, cache = tiny.run_with_cache(TEXTS, padding_side="left")
    torch.testing.assert_close(reward, torch.cat([tiny(text) for text in TEXTS]), atol=1e-5, rtol=0)
    parts = cache.decompose_resid(apply_ln=True, pos_slice=-1)
    torch.testing.assert_close((parts @ tiny.W_U[:, 0]).sum(0) + tiny.b_U[0], reward, atol=1e-5, rtol=0)
    assert tiny.tokenizer.padding_side == "right"


def test_the_cache_slices_positions_of_the_rewards(tiny):
    reward, whole = tiny.run_with_cache(TEXTS, padding_side="left")
    _, last = tiny.run_with_cache(TEXTS, padding_side="left", pos_slice=-1)
    torch.testing.assert_close(last["hook_reward_tokens"], reward[:, None])  # as the residual stream's: a slice of one position
    torch.testing.assert_close(last["hook_reward"], reward)
    _, some = tiny.run_with_cache(TEXTS, padding_side="left", pos_slice=(2, 5))
    torch.testing.assert_close(some["hook_reward_tokens"], whole["hook_reward_tokens"][:, 2:5])
    one, cache = tiny.run_with_cache(TEXTS[1], remove_batch_dim=True)
    assert cache["hook_reward_tokens"].shape == (len(TEXTS[1]),) and cache["resid_post", 1].shape == (len(TEXTS[1]), 32)
    torch.testing.assert_close(cache["hook_reward"], one[0])
    _, _, backward = tiny.get_caching_hooks(incl_bwd=True)
    assert "hook_reward_tokens" in dict(backward)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prepend_bos": True}, "prepend_bos"),
        ({"loss_per_token": True}, "loss_per_token"),
        ({"padding_side": "top"}, "padding_side"),
        ({"attn_mask": None}, "did you mean attention_mask"),
    ],
)
def test_options_that_would_be_ignored_are_refused(tiny, options, message):
    with pytest.raises(InputError, match=message):
        tiny(TEXTS, **options)


def test_a_reward_model_writes_no_text(tiny):
    for write in (tiny.generate, tiny.generate_stream):
        with pytest.raises(InputError, match="writes no text"):
            write("Hi", max_new_tokens=3)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("x" * 2049, "context is 2048 tokens, got 2049"),
        (torch.full((1, 3), 257), r"must be in \[0, 257\).*got 257"),
        (torch.full((1, 3), -1), "got -1"),
        (torch.zeros((1, 0), dtype=torch.long), "at least one row"),
        ([""], "must not be empty"),
    ],
)
def test_inputs_that_no_model_can_read_are_refused(tiny, given, message):
    with pytest.raises(InputError, match=message):
        tiny(given)


def test_tokenizers_that_do_not_fit_are_refused(tiny):
    hf = tiny_hf_model()
    with pytest.raises(InputError, match="got str"):
        check_tokenizer("gpt2", tiny.cfg)
    slow = byte_tokenizer()
    slow.__class__ = type("SlowTokenizer", (type(slow),), {"is_fast": False})
    with pytest.raises(InputError, match="SlowTokenizer is a slow tokenizer"):
        HookedRewardModel.from_hf(hf, slow)
    hf.resize_token_embeddings(200)
    with pytest.raises(InputError, match=r"257 tokens.*embeddings of 200"):
        HookedRewardModel.from_hf(hf, byte_tokenizer())


def test_a_special_token_past_the_embedding_is_refused_where_it_is_read(tiny):
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    model = HookedRewardModel.from_hf(tiny_hf_model(), tokenizer)
    torch.testing.assert_close(model(TEXTS), tiny(TEXTS))  # padding is embedded, and read by nobody
    with pytest.raises(InputError, match=r"must be in \[0, 257\)"):
        model("a <pad>")
    with pytest.raises(InputError, match=r"must be in \[0, 257\)"):
        score(model, [*pairs_of_row({"prompt": "p", "chosen": "a <pad>", "rejected": "b"}, "1")])


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny_hf_model().save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f: LOAD(f, torch_dtype=torch.bfloat16), "'torch_dtype'; did you mean dtype"),
        (lambda f: LOAD(f, dtyp=torch.bfloat16), "did you mean dtype"),
        (lambda f: LOAD(f, device_map="auto"), "device_map is refused: a model is on one device"),
        (lambda f: MODEL.from_base(f, sed=3), "did you mean seed"),
        (lambda f: MODEL.from_hf(tiny_hf_model(), tokeniser=None), "did you mean tokenizer"),
        (lambda f: LOAD(f, device="cpu").save_pretrained(f, fold=True), "did you mean folder"),
        (lambda f: LOAD(f, revision="v2"), "revision.*is a folder on this machine"),
        (lambda f: LOAD("helpful", revision="v2"), "revision"),
        (lambda f: LOAD(f, base="x"), "base is for adapters"),
        (lambda f: LOAD(f, readout="last"), "readout must be one of mask, hf"),
    ],
)
def test_options_that_loading_does_not_know_are_refused(folder, call, message):
    with pytest.raises(InputError, match=message) as said:
        call(folder)
    assert isinstance(said.value, TypeError) == ("did you mean" in message)


def test_a_keyword_that_nothing_is_near_to():
    with pytest.raises(UnknownOption, match=r"has no option 'zzz' \(known: a, b\)"):
        check_keywords(["a", "zzz"], ["a", "b"], "f")


def _hugging_face(hf, ids: list[int]) -> float:
    return hf(torch.tensor([ids])).logits[0, 0].item()


def test_the_readout_of_hugging_face_passes_over_pad_tokens_at_the_end(folder):
    hf = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    theirs, ours = load(folder, device="cpu", readout="hf"), load(folder, device="cpu")
    rows = [[5, 6, 7, 0, 0], [5, 0, 7, 8, 9], [5, 6, 7, 8, 0], [0, 0, 0, 0, 0]]
    for ids in rows:
        tokens = torch.tensor([ids])
        assert theirs(tokens).item() == pytest.approx(_hugging_face(hf, ids), abs=1e-5)
        assert ours(tokens).item() == pytest.approx(ours(tokens, "reward_tokens")[0, -1].item(), abs=1e-6)
    assert abs(theirs(torch.tensor([rows[0]])) - ours(torch.tensor([rows[0]]))) > 1e-3
    both = torch.tensor([[5, 6, 7, 0, 1], [5, 6, 0, 0, 0]])  # the last token of each is padding
    mask = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 1, 0]])
    expected = [_hugging_face(hf, [5, 6, 7, 0]), _hugging_face(hf, [5, 6, 0, 0])]
    assert theirs(both, attention_mask=mask).tolist() == pytest.approx(expected, abs=1e-5)
    text = "Hello<end><end>"
    assert theirs(text).item() == pytest.approx(_hugging_face(hf, byte_tokenizer()(text)["input_ids"]), abs=1e-5)


def _pairs() -> list[PreferencePair]:
    texts = [("one<end>", "two"), ("th<end>ree", "four<end><end>"), ("one", "one<end>")]
    return [p for i, (a, b) in enumerate(texts) for p in pairs_of_row({"prompt": "Hi", "chosen": a, "rejected": b}, str(i))]


def test_pairs_are_scored_where_hugging_face_reads_them_packed_or_not(folder):
    hf = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    model = load(folder, device="cpu", readout="hf")
    pairs = _pairs()
    plain = encode_for(load(folder, device="cpu"), pairs)
    expected = [_hugging_face(hf, [*plain.rows[i].ids]) for i in plain.chosen]
    assert score(model, pairs).chosen == pytest.approx(expected, abs=1e-5)
    with model.hooks([("hook_reward", lambda reward, hook: reward)]):  # a hook of the user's: one transcript a row
        assert score(model, pairs).chosen == pytest.approx(expected, abs=1e-5)
    assert {row.ids[-1] for row in encode_for(model, pairs).rows}.isdisjoint({0})
    assert {row.ids[-1] for row in plain.rows} & {0}


def test_an_odd_number_of_rotary_dimensions_is_refused():
    config = GPTNeoXConfig(vocab_size=257, hidden_size=48, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4, pad_token_id=0)
    config.num_labels = 1
    assert dict(config.rope_parameters or {})["partial_rotary_factor"] == 0.25
    with pytest.raises(InputError, match="3 rotary dimensions"):
        HookedRewardModel.from_hf(AutoModelForSequenceClassification.from_config(config))


def test_a_residual_stream_is_read_where_its_tokens_say():
    model = HookedRewardModel.from_hf(tiny_hf_model(), byte_tokenizer(), readout="hf")
    tokens = torch.tensor([[5, 6, 7, 0, 0], [5, 6, 7, 8, 9]])
    mask = torch.ones_like(tokens)
    expected = model(tokens, attention_mask=mask)
    residual = model(tokens, None, attention_mask=mask, stop_at_layer=1)
    assert torch.equal(model(residual, attention_mask=mask, start_at_layer=1, tokens=tokens), expected)
    for given in ({}, {"tokens": tokens[:, :2]}):
        with pytest.raises(InputError, match=r"a residual stream does not show: give tokens= beside it, \[2, 5\]"):
            model(residual, attention_mask=mask, start_at_layer=1, **given)
    model.readout = "mask"
    assert not torch.equal(model(residual, attention_mask=mask, start_at_layer=1), expected)


def test_where_the_reward_is_read_is_one_of_two():
    model = tiny_reward_model()
    assert model.readout == "mask"
    for wrong in ("HF", "last"):
        with pytest.raises(InputError, match=r"^readout must be one of mask, hf, got"):
            model.readout = cast(Any, wrong)
        with pytest.raises(InputError, match=r"^readout must be one of mask, hf, got"):
            HookedRewardModel.from_hf(tiny_hf_model(), readout=cast(Any, wrong))
    assert model.readout == "mask"


@pytest.mark.parametrize("given", [5, None, b"x", {"a": 1}])
def test_what_is_no_model_and_no_text(tiny, given):
    # The checker of types that the tests run under is first at the functions that users call.
    with pytest.raises(InputError, match=r"^name_or_path must be text or a Path, got"):
        name_of(given)
    with pytest.raises(InputError, match=r"^the model must be given a text, a list of texts, or a tensor of tokens, got"):
        tokenise(given, tiny.tokenizer, tiny.cfg, None)
    with pytest.raises(InputError, match=r"^a model is a folder, a hub id, or embedded \(helpful, harmless, mixed\); got ''$"):
        load("")


def test_what_is_no_token():
    with pytest.raises(InputError, match=r"^tokens are whole numbers, got torch\.float32; a residual stream comes with start_at_layer$"):
        tiny_reward_model()(torch.rand(2, 3, 32))
