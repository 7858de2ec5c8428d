"""Heads of published layouts: what is recognised and what is refused in which words, what is written back, where rewards are read, and the
hook points of a head that is no direction. Rewards of every published family: `test_heads.py`."""

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken
from torch import Tensor
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification, LlamaConfig, LlamaForCausalLM, LlamaModel

import tl_reward
from tl_reward import HookedRewardModel, InputError, Message, PreferencePair
from tl_reward.data.batches.packing import pack
from tl_reward.data.encoding import EndAt, Row, encode_pairs
from tl_reward.data.text import NoTemplate
from tl_reward.interventions.from_functions import intervention
from tl_reward.model.checkpoints import check_reward_model, outputs_of
from tl_reward.model.heads import layouts, modules, reading
from tl_reward.model.heads.layouts import LLAMA3_PROMPT_END
from tl_reward.model.tiny import byte_tokenizer
from tl_reward.running.batches.batching import tokenizer_of
from tl_reward.sites import Site

D, WIDTH, VOCABULARY = 32, 12, 270
TOKENS = torch.randint(1, 257, (3, 11), generator=torch.Generator().manual_seed(0))
PROMPT_END = (7, 8)  # in the place of Llama-3's, whose vocabulary is large


def drawn(**shapes: tuple[int, ...]) -> dict[str, Tensor]:
    """`score_0_weight` stands for score.0.weight, where a name has an underscore of its own it is doubled."""
    random = torch.Generator().manual_seed(1)
    names = {key.replace("__", "@").replace("_", ".").replace("@", "_"): shape for key, shape in shapes.items()}
    return {key: 0.4 * torch.randn(shape, generator=random) for key, shape in names.items()}


def linear(stem: str, count: int = 1, *, bias: bool = False) -> dict[str, Tensor]:
    values = drawn(weight=(count, D), bias=(count,))
    return {f"{stem}.{part}": value for part, value in values.items() if bias or part == "weight"}


def mlp(stem: str, count: int = 1) -> dict[str, Tensor]:
    values = drawn(**{"0_weight": (WIDTH, D), "0_bias": (WIDTH,), "2_weight": (count, WIDTH), "2_bias": (count,)})
    return {f"{stem}.{part}": value for part, value in values.items()}


def gated() -> dict[str, Tensor]:
    layers = {"0_weight": (WIDTH, D), "0_bias": (WIDTH,), "1_weight": (3, WIDTH), "1_bias": (3,)}
    gate = {f"gating.layers.{part}": 4 * value for part, value in drawn(**layers).items()}
    return linear("regression_layer", 3) | gate | {"gating.logit_scale": torch.tensor([1.5]), "reward_transform_matrix": torch.randn(3, 3)}


def write(folder: Path, head: Mapping[str, Tensor], *, architecture: str = "Anything", prefix: str = "model.", **config: Any) -> Path:
    """A tiny Llama with a head, laid out by hand, and a tokenizer of bytes."""
    torch.manual_seed(0)
    sizes: Any = {"hidden_size": D, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    made = LlamaConfig(
        vocab_size=VOCABULARY, max_position_embeddings=256, initializer_range=0.3, pad_token_id=0, bos_token_id=None, **sizes
    )
    trunk = LlamaModel(made)
    for name, parameter in trunk.named_parameters():
        if "norm" in name:
            parameter.data += 0.3 * torch.randn_like(parameter)
    folder.mkdir(parents=True, exist_ok=True)
    weights = {f"{prefix}{key}": value for key, value in trunk.state_dict().items()} | dict(head)
    save_file({key: value.contiguous() for key, value in weights.items()}, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(made.to_diff_dict() | {"architectures": [architecture]} | config))
    byte_tokenizer().save_pretrained(folder)
    return folder


def load(folder: Path, **options: Any) -> HookedRewardModel:
    return HookedRewardModel.from_pretrained(folder, device="cpu", **options)


def hidden(folder: Path, tokens: Tensor = TOKENS) -> Tensor:
    """The final norm's output, by Hugging Face, [batch, pos, d_model]."""
    model, weights = LlamaModel(LlamaConfig.from_pretrained(folder)).eval(), load_file(folder / "model.safetensors")
    model.load_state_dict({key.removeprefix("model."): value for key, value in weights.items() if key.startswith("model.")})
    with torch.no_grad():
        return model(tokens).last_hidden_state


def chat(*texts: str) -> tuple[Message, ...]:
    return tuple(Message(("user", "assistant")[i % 2], text) for i, text in enumerate(texts))


PAIRS = [
    PreferencePair("one", chosen=chat("Is it?", "Yes, it is."), rejected=chat("Is it?", "No.")),
    PreferencePair("two", chosen=chat("Is it?", "Yes, it is.", "Why?", "So."), rejected=chat("Is it?", "Yes, it is.", "Why?", "Hm, no.")),
]


@pytest.fixture
def short_prompt_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gate that reads where a tiny model's prompts end: two bytes of "\n\nAssistant:", as the tokenizer has them."""
    ids = tuple(byte_tokenizer()("t:")["input_ids"])
    monkeypatch.setattr("tl_reward.model.heads.reading.LLAMA3_PROMPT_END", ids)


HEADS = {
    "columns": linear("score", 4),
    "columns with biases": linear("score", 3, bias=True),
    "one layer with a bias": linear("v_head.summary", bias=True),
    "score MLP": mlp("score"),
    "v_head MLP": mlp("v_head.summary"),
    "gate": gated(),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", HEADS)
def test_batches_and_sweeps_give_the_rewards_of_transcripts_one_by_one(name, dtype, tmp_path, short_prompt_end):
    model = load(write(tmp_path, HEADS[name]), dtype=dtype)
    if name.startswith("columns"):
        model.output = {"output 0": 0.5, "output 2": -1.0}
    rows = encode_pairs(PAIRS, tokenizer_of(model), max_length=256)

    def one_by_one(**hooks: Any) -> list[float]:
        return [float(model.run_with_hooks(torch.tensor([rows.rows[i].ids]), **hooks)[0]) for i in (*rows.chosen, *rows.rejected)]

    @intervention(Site(1, "mlp_post"), per_token=True)
    def halve(activation: Tensor) -> Tensor:
        return activation / 2

    @intervention(Site(1, "mlp_post"))
    def halve_apart(activation: Tensor) -> Tensor:
        return activation / 2

    atol = 1e-4 if dtype == torch.float32 else 0.3
    halved = [("blocks.1.mlp.hook_post", lambda value, hook: value / 2)]
    for scores, hooks in zip(tl_reward.sweep(model, PAIRS, [[], [halve]]), ([], halved), strict=True):
        assert [*scores.chosen, *scores.rejected] == pytest.approx(one_by_one(fwd_hooks=hooks), abs=atol)
    (apart,) = tl_reward.sweep(model, PAIRS, [[halve_apart]])  # one transcript a row
    assert [*apart.chosen, *apart.rejected] == pytest.approx(one_by_one(fwd_hooks=halved), abs=atol)
    assert model(TOKENS, "reward_tokens").dtype == torch.float32


@pytest.mark.parametrize("name", HEADS)
def test_a_folder_that_was_written_gives_the_same_outputs(name, tmp_path, short_prompt_end):
    model = load(write(tmp_path / "read", HEADS[name]))
    model.save_pretrained(tmp_path / "saved")
    again = load(tmp_path / "saved")
    assert again.outputs == model.outputs and again.output == model.output
    torch.testing.assert_close(again(TOKENS, "logits"), model(TOKENS, "logits"), atol=1e-6, rtol=1e-6)
    again.save_pretrained(tmp_path / "twice")
    torch.testing.assert_close(load(tmp_path / "twice")(TOKENS, "logits"), model(TOKENS, "logits"), atol=1e-6, rtol=1e-6)


def test_what_has_one_output_is_written_as_hugging_faces_own(tmp_path):
    """A cost, too, which is then the reward that it was read as."""
    model = load(write(tmp_path / "read", linear("score_head"), score_type="cost"))
    assert model.outputs == ("cost",) and model.output == {"cost": -1.0}
    model.save_pretrained(tmp_path / "saved")
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved").eval()
    torch.testing.assert_close(theirs(TOKENS[:1]).logits[:, 0], model(TOKENS[:1]), atol=1e-5, rtol=0)
    expected = -(hidden(tmp_path / "read")[:, -1] @ linear("score_head")["score_head.weight"].T)[:, 0]
    torch.testing.assert_close(model(TOKENS), expected, atol=1e-4, rtol=0)
    assert load(tmp_path / "saved").output is None


def test_names_of_outputs_are_kept(tmp_path):
    names = {"0": "helpful", "1": "honest", "2": "harmless"}
    model = load(
        write(tmp_path / "read", linear("score", 3), architecture="LlamaForSequenceClassification", id2label=names), output="honest"
    )
    assert model.outputs == ("helpful", "honest", "harmless") and model.W_U.shape == (D, 3) and model.cfg.d_vocab_out == 3
    column = linear("score", 3)["score.weight"][1]
    torch.testing.assert_close(model(TOKENS), hidden(tmp_path / "read")[:, -1] @ column, atol=1e-4, rtol=0)
    model.save_pretrained(tmp_path / "saved")
    assert load(tmp_path / "saved").outputs == model.outputs
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved").config.id2label[1] == "honest"


def test_models_of_hugging_face_with_several_labels_are_taken():
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=257, hidden_size=D, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4)  # two labels
    two = AutoModelForSequenceClassification.from_config(config).eval()
    model = HookedRewardModel.from_hf(two, output=1)
    torch.testing.assert_close(model(TOKENS[:1]), two(TOKENS[:1]).logits[:, 1], atol=1e-5, rtol=0)
    with pytest.raises(InputError, match="say which output is the reward"):
        HookedRewardModel.from_hf(two)(TOKENS)
    steps = AutoModelForTokenClassification.from_config(config).eval()
    steps.score.bias.data += 0.3 * torch.randn(2)
    logits = steps(TOKENS).logits
    read = HookedRewardModel.from_hf(steps)
    torch.testing.assert_close(read(TOKENS), logits[:, -1, 1] - logits[:, -1, 0], atol=1e-5, rtol=0)


def test_hook_points_of_an_mlp(tmp_path):
    head = mlp("score")
    model = load(write(tmp_path, head))
    reward, cache = model.run_with_cache(TOKENS)
    pre = hidden(tmp_path) @ head["score.0.weight"].T + head["score.0.bias"]
    torch.testing.assert_close(cache["unembed.hook_pre"], pre, atol=1e-4, rtol=1e-4)  # the final norm is in the first layer
    torch.testing.assert_close(cache["unembed.layers.0.hook_in"], pre.relu(), atol=1e-4, rtol=1e-4)
    assert cache["unembed.hook_out"].shape == (3, 11, 1) and model(TOKENS, "logits").shape == (3, 11, 1)
    off = model.run_with_hooks(TOKENS, fwd_hooks=[("unembed.layers.0.hook_in", lambda value, hook: value * 0)])
    torch.testing.assert_close(off, head["score.2.bias"].expand(3), atol=1e-5, rtol=0)
    assert (reward - off).abs().min() > 1e-3
    with pytest.raises(InputError, match="an MLP of 2 layers, so its reward is no direction"):
        _ = model.reward_direction


def test_gradients_flow_through_an_mlp(tmp_path):
    model = load(write(tmp_path, mlp("score")))
    kept: list[Tensor] = []

    def keep(value: Tensor, hook: Any) -> Tensor:
        kept.append(value.detach().requires_grad_())
        return kept[-1]

    with model.hooks(fwd_hooks=[("unembed.hook_in", keep)]):
        model(TOKENS).sum().backward()
    gradient = kept[0].grad
    assert gradient is not None and (gradient[:, :-1] == 0).all()
    x = kept[0][:, -1].detach()
    on = (x @ model.unembed.W_U + model.unembed.b_U > 0).float()
    unembed: Any = model.unembed
    later = unembed.layers[0]
    torch.testing.assert_close(gradient[:, -1], (on * later.weight[0]) @ model.unembed.W_U.T, atol=1e-5, rtol=0)


def test_a_gate_is_read_where_the_prompt_ends(tmp_path, monkeypatch):
    monkeypatch.setattr("tl_reward.model.heads.reading.LLAMA3_PROMPT_END", PROMPT_END)
    head = gated()
    model = load(write(tmp_path, head, gating_temperature=2.0))
    tokens = TOKENS.clone().clamp(min=20)
    tokens[:, 2:4] = tokens[0, 6:8] = torch.tensor(PROMPT_END)  # the last one counts
    x, at = hidden(tmp_path, tokens), [6, 2, 2]
    gate = F.relu(x[range(3), at] @ head["gating.layers.0.weight"].T + head["gating.layers.0.bias"])
    gate = torch.softmax((gate @ head["gating.layers.1.weight"].T + head["gating.layers.1.bias"]) / 2.0, 1) * 1.5
    each = x[:, -1] @ head["regression_layer.weight"].T
    expected = (gate * (each @ head["reward_transform_matrix"])).sum(1)
    reward, cache = model.run_with_cache(tokens)
    torch.testing.assert_close(reward, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(cache["unembed.gate.hook_weights"][range(3), at], gate, atol=1e-5, rtol=0)
    assert model.outputs == ("output 0", "output 1", "output 2", "score") and model.output == "score"
    torch.testing.assert_close(model(tokens, "logits")[:, -1], torch.cat([each, expected[:, None]], 1), atol=1e-4, rtol=1e-4)

    per_token = model(tokens[:1], "reward_tokens")[0]
    prefixes = torch.cat([model(tokens[:1, : end + 1]) for end in range(3, 11)])
    torch.testing.assert_close(per_token[3:], prefixes, atol=1e-4, rtol=1e-4)
    off = model.run_with_hooks(tokens, fwd_hooks=[("unembed.gate.hook_weights", lambda value, hook: value * 0)])
    assert off.abs().max() == 0

    with pytest.raises(InputError, match=r"the output 'score' is a sum of others .* no direction"):
        _ = model.reward_direction
    model.output = "output 1"
    torch.testing.assert_close(cache["ln_final.hook_normalized"][:, -1] @ model.reward_direction, each[:, 1], atol=1e-4, rtol=1e-4)


def test_a_gate_that_finds_no_end_of_a_prompt_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("tl_reward.model.heads.reading.LLAMA3_PROMPT_END", PROMPT_END)
    model = load(write(tmp_path, gated()))
    tokens = TOKENS.clone().clamp(min=20)
    tokens[0, 4:6] = torch.tensor(PROMPT_END)
    with pytest.raises(InputError, match=r"row 1: this head's gate reads where the prompt ends"):
        model(tokens)
    with pytest.raises(InputError, match="gate reads where the prompt ends"):
        tl_reward.score(model, PAIRS)  # packed
    _, cache = model.run_with_cache(tokens[:1])
    with pytest.raises(InputError, match=r"a residual stream does not show: give tokens= beside it, \[1, 11\]"):
        model(cache["resid_pre", 1], start_at_layer=1)
    torch.testing.assert_close(model(cache["resid_pre", 1], start_at_layer=1, tokens=tokens[:1]), model(tokens[:1]), atol=1e-5, rtol=0)


def test_a_place_found_in_one_transcript_is_not_anothers(tmp_path, monkeypatch):
    """Packed, one transcript may end with the first half of what ends a prompt, and the next begin with the other."""
    found = modules._last_before(torch.tensor([[7, 8, 1, 7, 8, 2, 7]]), PROMPT_END)
    assert found.tolist() == [[-1, 0, 0, 0, 3, 3, 3]]
    assert modules._last_before(torch.tensor([[7]]), PROMPT_END).tolist() == [[-1]]
    monkeypatch.setattr("tl_reward.model.heads.reading.LLAMA3_PROMPT_END", PROMPT_END)
    model = load(write(tmp_path, gated()))
    (batch,) = pack([Row((7, 8, 1), 2), Row((8, 5, 4), 2), Row((8, 5, 7, 8), 2)], max_tokens=99)
    places = modules.gate_places(model.unembed, torch.zeros(1, batch.tokens.shape[1]), batch, None)
    assert places is not None and batch.tokens[0].tolist() == [7, 8, 1, 8, 5, 4, 7, 8]
    assert places[0].tolist() == [-1, 0, 0, -1, -1, -1, -1, 6]


@pytest.mark.parametrize("temperature", [0, -1.0, None, "10"])
def test_the_temperature_of_a_gate_is_above_zero(temperature, tmp_path, short_prompt_end):
    with pytest.raises(InputError, match=r"gating_temperature in .* must be a number above 0"):
        load(write(tmp_path, gated(), gating_temperature=temperature))


def test_the_gate_of_a_real_prompt_needs_its_vocabulary(tmp_path):
    assert len(LLAMA3_PROMPT_END) == 5
    with pytest.raises(InputError, match="reads where a Llama-3 prompt ends, at tokens that it does not have"):
        load(write(tmp_path, gated()))


def test_an_output_is_not_called_as_the_gates_sum(tmp_path, short_prompt_end):
    model = load(write(tmp_path, gated(), id2label={"0": "score", "1": "b", "2": "c"}))
    assert model.outputs == ("output 0", "output 1", "output 2", "score") == outputs_of(tmp_path)
    text = "\n\nHuman: hello\n\nAssistant: yes ok"
    torch.testing.assert_close(model(text)[0], model(text, "logits")[0, -1, 3], atol=0, rtol=0)


@pytest.mark.parametrize("part", ["running_mean", "running_var"])
@pytest.mark.parametrize("size", [1, 5, None])
def test_moments_of_a_batch_have_the_size_of_their_layer(part, size, tmp_path, short_prompt_end):
    """One number would be used for all."""
    norm = {each: torch.ones(WIDTH) for each in ("weight", "bias", "running_mean", "running_var")}
    layers = drawn(**{"0_weight": (WIDTH, D), "0_bias": (WIDTH,), "3_weight": (3, WIDTH), "3_bias": (3,)})
    layers |= {f"2.{each}": value for each, value in norm.items()}
    head = {key: value for key, value in gated().items() if "layers" not in key} | {f"gating.layers.{k}": v for k, v in layers.items()}
    assert len(load(write(tmp_path / "whole", head)).outputs) == 4
    name = f"gating.layers.2.{part}"
    changed = {key: value for key, value in head.items() if key != name} | ({} if size is None else {name: torch.ones(size)})
    told = part if size or part == "running_var" else "weight"  # without a mean it is no norm
    with pytest.raises(InputError, match=rf"gating\.layers\.2\.{told} is "):
        load(write(tmp_path / "changed", changed))


LABELS = {
    ("LABEL_0", "LABEL_1"): {"wrong": -1.0, "right": 1.0},
    ("Incorrect", "correct"): {"Incorrect": -1.0, "correct": 1.0},
    ("bad", "good"): {"bad": -1.0, "good": 1.0},
    ("good", "bad"): None,
    ("right", "wrong"): None,
    ("wrong", "wrong"): None,
    ("a", "b"): None,
}


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("head", [linear("score", 2, bias=True), mlp("score", 2)], ids=["linear", "mlp"])
def test_which_of_two_labels_is_the_good_one_is_not_guessed(labels, head, tmp_path):
    model = load(write(tmp_path / "read", head, architecture="LlamaForTokenClassification", id2label=dict(enumerate(labels))))
    assert model.output == LABELS[labels] and outputs_of(tmp_path / "read") == model.outputs
    if model.output is None:
        with pytest.raises(InputError, match="say which output is the reward"):
            model(TOKENS)
        model.output = model.outputs[0]
        torch.testing.assert_close(model(TOKENS), model(TOKENS, "logits")[:, -1, 0], atol=0, rtol=0)
    model.save_pretrained(tmp_path / "saved")
    assert load(tmp_path / "saved").output == LABELS[labels]


@pytest.mark.parametrize("mean", [0.0, 0.5], ids=["no bias", "a bias"])
@pytest.mark.parametrize("count", [1, 3])
def test_normalised_rewards_are_written_as_they_are_read(count, mean, tmp_path):
    config = {"normalize_reward": True, "mean": mean, "std": 2.5, "num_labels": count}
    model = load(write(tmp_path / "read", linear("score", count), architecture="RewardModel", **config), output=0)
    expected = (hidden(tmp_path / "read")[:, -1] @ linear("score", count)["score.weight"][0] - mean) / 2.5
    torch.testing.assert_close(model(TOKENS), expected, atol=1e-4, rtol=0)
    model.save_pretrained(tmp_path / "saved")
    torch.testing.assert_close(load(tmp_path / "saved", output=0)(TOKENS), expected, atol=1e-4, rtol=0)


STEP = "<extra_0>"


def with_step(folder: Path) -> int:
    tokenizer: Any = byte_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": [AddedToken(STEP)]})
    tokenizer.save_pretrained(folder)
    return int(tokenizer.convert_tokens_to_ids(STEP))


def test_a_process_reward_is_read_at_the_last_marked_token(tmp_path):
    head = mlp("score", 2)
    token = with_step(write(tmp_path, head, architecture="Qwen2ForProcessRewardModel"))
    model = load(tmp_path)
    assert model.end == EndAt(token, appended=False) and model.outputs == ("wrong", "right")
    tokens = TOKENS.clone()
    tokens[:, 4] = tokens[1, 8] = token
    inner = (hidden(tmp_path, tokens) @ head["score.0.weight"].T + head["score.0.bias"]).relu()
    both = inner @ head["score.2.weight"].T + head["score.2.bias"]
    odds = both[..., 1] - both[..., 0]
    torch.testing.assert_close(model(tokens), odds[range(3), [4, 8, 4]], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(model(tokens, "reward_tokens"), odds, atol=1e-4, rtol=1e-4)
    with pytest.raises(InputError, match=rf"row 0 has no token {token}"):
        model(TOKENS)

    steps = [PreferencePair("steps", chosen=chat("2+2?", f"4.{STEP} Done"), rejected=chat("2+2?", f"5.{STEP}"))]
    scores = tl_reward.score(model, steps)
    expected = [float(model(f"\n\nHuman: 2+2?\n\nAssistant: {answer}.{STEP}")[0]) for answer in (4, 5)]
    assert [scores.chosen[0], scores.rejected[0]] == pytest.approx(expected, abs=1e-4)
    with pytest.raises(InputError, match=rf"pair one: chosen: this model reads rewards at the token {STEP}"):
        tl_reward.score(model, [*steps, PAIRS[0]])
    left = tl_reward.score(model, [*steps, PAIRS[0]], on_bad="drop")
    assert left.reading is not None
    assert len(left.chosen) == 1 and left.reading.left_out == {"refused by the tokenizer's chat template, or without the end of a step": 1}
    model.save_pretrained(tmp_path / "saved")
    again = load(tmp_path / "saved")
    assert again.end == model.end and again.output == model.output
    torch.testing.assert_close(again(tokens), model(tokens), atol=1e-6, rtol=1e-6)


def test_a_token_to_read_at_is_appended_once(tmp_path):
    tokenizer: Any = byte_tokenizer()
    tokenizer.add_special_tokens({"cls_token": "<read>"})
    tokenizer.save_pretrained(write(tmp_path, linear("v_head")))
    model = load(tmp_path)
    token = int(tokenizer.cls_token_id or 0)
    assert model.end == EndAt(token, appended=True)
    direction = linear("v_head")["v_head.weight"][0]
    ids = torch.tensor([[*tokenizer("Hello")["input_ids"], token]])
    expected = hidden(tmp_path, ids)[:, -1] @ direction
    for given in ("Hello", "Hello<read>", ids, torch.cat([ids, ids[:, :1]], 1)):
        torch.testing.assert_close(model(given), expected, atol=1e-4, rtol=0)
    encoded = encode_pairs(PAIRS, tokenizer_of(model), max_length=256, end=model.end)
    assert all(row.ids[-1] == token and row.ids.count(token) == 1 for row in encoded.rows)
    scores = tl_reward.score(model, PAIRS)
    assert scores.chosen[0] == pytest.approx(float(model("\n\nHuman: Is it?\n\nAssistant: Yes, it is.")[0]), abs=1e-4)
    with pytest.raises(InputError, match=rf"the read-out at the last token, not at the token {token}"):
        tl_reward.score(model, encode_pairs(PAIRS, tokenizer_of(model), max_length=256))
    model.save_pretrained(tmp_path / "saved")
    torch.testing.assert_close(load(tmp_path / "saved")("Hello"), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("tied", [False, True], ids=["own output embedding", "tied"])
@pytest.mark.parametrize(("asked", "ids"), [("token:5", (5,)), ("token:9-5", (9, 5)), ("token:a-b", "ab"), ("token:-", "-")])
def test_the_logit_of_a_token_is_asked_for(tied, asked, ids, tmp_path):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=257, hidden_size=D, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, initializer_range=0.3
    )
    config.tie_word_embeddings = tied
    model = LlamaForCausalLM(config).eval()
    model.save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    chosen = [int(byte_tokenizer().encode(each)[0]) if isinstance(each, str) else each for each in ids]
    logits = model(TOKENS).logits[:, -1]
    expected = logits[:, chosen[0]] - (logits[:, chosen[1]] if len(chosen) > 1 else 0)
    ours = load(tmp_path, head=asked)
    torch.testing.assert_close(ours(TOKENS), expected, atol=1e-4, rtol=0)
    assert ours.reward_direction.shape == (D,) and load(tmp_path, head="token:6").origin.weights != ours.origin.weights
    ours.save_pretrained(tmp_path / "saved")
    torch.testing.assert_close(load(tmp_path / "saved")(TOKENS), ours(TOKENS), atol=1e-5, rtol=0)
    with pytest.raises(InputError, match=r"found LlamaForCausalLM, and no reward head in its files.*head=\"token:0\""):
        load(tmp_path)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("token:270", "names no token of its vocabulary of 270"),
        ("token:7-7", "a token and itself: every reward would be 0"),
        ("token:abc", "names no token"),
        ("token:", 'head is "token:A"'),
        ("0", 'head is "token:A"'),
    ],
)
def test_heads_that_are_asked_for_wrongly(asked, message, tmp_path):
    write(tmp_path, {}, architecture="LlamaForCausalLM", tie_word_embeddings=True)
    with pytest.raises(InputError, match=message):
        load(tmp_path, head=asked)


def test_digits_behind_a_space_of_their_own():
    """As SentencePiece encodes them."""
    pieces: Any = SimpleNamespace(encode=lambda text, **_: [29871, 29945], get_vocab=lambda: {"5": 29945}, decode=str)
    assert [reading._token(said, pieces) for said in ("5", "id=5", "text=5", "text=12")] == [5, 5, 29945, None]
    with pytest.warns(UserWarning, match="the text '5' is another token, 29945"):
        reading._warn_of_digits("token:5", [5], pieces, "judge")


def test_an_output_embedding_that_is_lost_is_not_the_input_embedding(tmp_path):
    write(tmp_path, {}, architecture="LlamaForCausalLM", tie_word_embeddings=False)
    for check in (load, check_reward_model):
        with pytest.raises(InputError, match=r"lacks an output embedding \(lm_head\.weight\), and config\.json does not say"):
            check(tmp_path, head="token:5")


def test_digits_are_an_id_and_say_so_where_they_could_be_a_text(tmp_path):
    folder = write(tmp_path, {}, architecture="LlamaForCausalLM", tie_word_embeddings=True)
    rows = load_file(folder / "model.safetensors")["model.embed_tokens.weight"]
    five, one = (int(byte_tokenizer().encode(text)[0]) for text in "51")
    assert five != 5
    with pytest.warns(UserWarning, match=rf"'token:5' is read as the token with the id 5.* text '5' is another token, {five}; .*text=5"):
        by_id = load(folder, head="token:5")(TOKENS)
    with pytest.warns(UserWarning, match="text '1' is another token"):
        load(folder, head="token:a-1")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.simplefilter("ignore", NoTemplate)
        torch.testing.assert_close(load(folder, head="token:id=5")(TOKENS), by_id, atol=0, rtol=0)
        marks = load(folder, head="token:text=5-text=1")(TOKENS)
        load(folder, head="token:200")  # no text of one token
        load(folder, head="token:a")
    torch.testing.assert_close(marks, hidden(folder)[:, -1] @ (rows[five] - rows[one]), atol=1e-4, rtol=0)


def test_capped_logits_are_no_direction(tmp_path):
    with pytest.raises(InputError, match="capped"):
        load(write(tmp_path, {}, architecture="LlamaForCausalLM", tie_word_embeddings=True, final_logit_softcapping=30.0), head="token:0")


def test_a_head_in_a_file_of_its_own(tmp_path):
    """As LLaMA-Factory writes it."""
    write(tmp_path, {"lm_head.weight": torch.zeros(VOCABULARY, D)}, architecture="LlamaForCausalLM")
    head = linear("v_head.summary", bias=True)
    save_file(head, tmp_path / "value_head.safetensors")
    model = load(tmp_path)
    expected = hidden(tmp_path)[:, -1] @ head["v_head.summary.weight"][0] + head["v_head.summary.bias"]
    torch.testing.assert_close(model(TOKENS), expected, atol=1e-4, rtol=0)
    assert {Path(each.path).name for each in model._weights.made_from.files} == {"model.safetensors", "value_head.safetensors"}
    write(tmp_path, {key: -value for key, value in head.items()})
    with pytest.raises(InputError, match=r"v_head\.summary\.bias is in two files, value_head\.safetensors and another"):
        load(tmp_path)


def test_a_trunk_under_other_names(tmp_path):
    plain = load(write(tmp_path / "plain", linear("v_head")))(TOKENS)
    torch.testing.assert_close(load(write(tmp_path / "other", linear("v_head"), prefix="transformer."))(TOKENS), plain, atol=0, rtol=0)
    twice = write(tmp_path / "twice", linear("v_head"), prefix="transformer.")
    weights = load_file(twice / "model.safetensors")
    both = weights | {key.replace("transformer.", "model.model."): value.clone() for key, value in weights.items() if "transformer." in key}
    save_file(both, twice / "model.safetensors", metadata={"format": "pt"})
    torch.testing.assert_close(load(twice)(TOKENS), plain, atol=0, rtol=0)
    both["model.model.norm.weight"] = both["model.model.norm.weight"] + 1
    save_file(both, twice / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"norm\.weight \[32\], v_head"):
        load(twice)


REFUSED = {
    "another name": (
        linear("rm_head"),
        {},
        r"neither its trunk's nor those of a reward head .*rm_head\.weight \[1, 32\].*nearest head known",
    ),
    "one layer more": (linear("v_head") | linear("q_head"), {}, r"q_head\.weight \[1, 32\].*nearest .*Starling"),
    "another width": (
        {"v_head.weight": torch.ones(1, 31)},
        {},
        r"v_head\.weight is \[1, 31\] .*config\.json asks for a head that reads 32",
    ),
    "layers that do not join": (mlp("score") | {"score.2.weight": torch.ones(1, 5)}, {}, r"score\.2\.weight is \[1, 5\]"),
    "a bias of another size": (linear("v_head") | {"v_head.bias": torch.ones(2)}, {}, r"v_head\.bias is \[2\]"),
    "codes": ({"v_head.weight": torch.ones(1, D, dtype=torch.int8)}, {}, "not finite, or no numbers but codes"),
    "nan": ({"v_head.weight": torch.full((1, D), torch.nan)}, {}, r"v_head\.weight holds numbers that are not finite"),
    "a deviation of 0": (linear("value_head"), {"normalize_reward": True, "mean": 1.0, "std": 0.0}, "normalised by a mean of"),
    "a mean in words": (linear("value_head"), {"normalize_reward": True, "mean": "one", "std": 1.0}, "must be numbers, got 'one'"),
    "config of four": (linear("score"), {"id2label": {str(i): str(i) for i in range(4)}}, "found 4 outputs in config.json"),
    "config of four, three rows": (
        linear("score", 3),
        {"id2label": {str(i): str(i) for i in range(4)}, "normalize_reward": True},
        "found 4 outputs in config.json",
    ),
    "a scale for each output": (gated() | {"gating.logit_scale": torch.ones(3)}, {"vocab_size": 270}, r"logit_scale is \[3\]"),
    "an unknown gate": ({k: v for k, v in gated().items() if "transform" not in k}, {}, r"gating\.layers.*nearest .*ArmoRM"),
    "nan in a bias": (linear("score") | {"score.bias": torch.full((1,), torch.nan)}, {}, r"score\.bias holds numbers that are not finite"),
    "architecture of its own code": (
        {},
        {"model_type": "internlm2", "auto_map": {"AutoConfig": "own.Config"}},
        "'internlm2' is not supported",
    ),
    "layers numbered otherwise": (
        {f"score.{3 if key[6] == '2' else 0}{key[7:]}": value for key, value in mlp("score").items()},
        {},
        r"score\.0, .*score\.3 are not numbered as in any head that is known \(score\.0, score\.2, ",
    ),
    "an adapter": ({"score.base_layer.weight": torch.ones(1, D)}, {}, r"not merged.*merge_and_unload"),
}


OF_NUMBERS = ("codes", "nan", "nan in a bias", "a deviation of 0", "a mean in words", "a scale for each output")


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_known_is_refused_in_a_line(name, tmp_path, short_prompt_end):
    head, config, message = REFUSED[name]
    with pytest.raises(InputError, match=message) as refused:
        load(write(tmp_path, head, **config))
    assert "\n" not in str(refused.value) and (str(tmp_path) in str(refused.value) or name == name in ("a mean in words", "nan in a bias"))
    if name not in OF_NUMBERS:
        with pytest.raises(InputError, match=message):
            check_reward_model(tmp_path)


def test_an_output_that_is_not_there_is_refused_before_weights_are_read(tmp_path, monkeypatch):
    write(tmp_path, linear("score", 3))
    monkeypatch.setattr("tl_reward.model.checkpoints.loading._hf_model", None)
    with pytest.raises(InputError, match=r"no output 'honest'; the head has 3 outputs"):
        load(tmp_path, output="honest")
    with pytest.raises(InputError, match="leave it out"):
        load(tmp_path, head="token:0")


def test_every_layout_is_told_from_the_others():
    for layout in layouts.LAYOUTS:
        keys = [*layout.needs(), *([f"{layout.stem}.2.weight"] if layout.deep else [])]
        assert [other for other in layouts.LAYOUTS if other.fits(keys)] == [layout]
