"""Training, on a tiny model: it learns, resumes, and its folder loads here and in Hugging Face."""

import json
import subprocess
import sys

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, GPT2Config, LlamaConfig, LlamaForCausalLM

from tl_reward.data.readers import load_pairs
from tl_reward.errors import InputError
from tl_reward.interventions.ablations import ZeroAblation
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.model.tiny import byte_tokenizer, tiny_hf_model
from tl_reward.model.training import TrainingConfig, train
from tl_reward.neurons import NeuronSet
from tl_reward.running.scoring import score

PAIRS = load_pairs("embedded", objective="harmless", split="find", limit=12)
LORA = TrainingConfig(learning_rate=3e-2, epochs=6, batch_size=6, max_length=1000, save_every=2)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    tiny_hf_model().save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def trained(base, tmp_path_factory):
    output = tmp_path_factory.mktemp("runs") / "lora"
    return output, train(base, PAIRS, output, LORA)


def test_lora_learns_its_pairs_and_loads(base, trained):
    output, record = trained
    model = HookedRewardModel.from_pretrained(output, device="cpu")
    before = score(HookedRewardModel.from_base(base, device="cpu"), PAIRS).mean_margin().value
    assert score(model, PAIRS).mean_margin().value > before + 0.1
    assert record.pairs == 12 and record.steps == 12 and record.dropped == 0
    assert model.tokenizer is not None and model.tokenizer.chat_template is None
    assert json.loads((output / "adapter_config.json").read_text())["base_model_name_or_path"] == base
    assert {path.suffix for path in output.iterdir()} <= {".json", ".safetensors", ".md"}  # no pickle, no checkpoint left


def test_a_finished_folder_is_not_written_again(base, trained):
    for resume in (False, True):
        with pytest.raises(InputError, match="exists"):
            train(base, PAIRS, trained[0], LORA, resume=resume)


def test_full_fine_tuning_of_a_causal_language_model(tmp_path):
    config = LlamaConfig(vocab_size=257, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, pad_token_id=0)
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(tmp_path / "base")
    byte_tokenizer().save_pretrained(tmp_path / "base")
    full = TrainingConfig(method="full", learning_rate=1e-2, epochs=5, batch_size=6, max_length=1000, max_pairs=6)
    record = train(str(tmp_path / "base"), PAIRS, tmp_path / "out", full)
    assert record.pairs == 6
    model = HookedRewardModel.from_pretrained(tmp_path / "out", device="cpu")
    assert score(model, PAIRS).accuracy().value > 0.5


def test_a_killed_training_resumes_from_its_checkpoint_and_ends_like_one_that_was_not(base, trained, tmp_path):
    script = f"""
import os, sys
from tl_reward.data.readers import load_pairs
from tl_reward.model.training import TrainingConfig, train
from transformers import TrainerCallback, Trainer
class Kill(TrainerCallback):
    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == 5:
            os._exit(9)
init = Trainer.__init__
def patched(self, *a, **k):
    init(self, *a, **k)
    self.add_callback(Kill())
Trainer.__init__ = patched
pairs = load_pairs("embedded", objective="harmless", split="find", limit=12)
train({base!r}, pairs, {str(tmp_path / "out")!r}, {LORA!r})
"""
    assert subprocess.run([sys.executable, "-c", script], capture_output=True).returncode == 9
    assert not (tmp_path / "out" / "training.json").exists()
    with pytest.raises(InputError, match="exists"):
        train(base, PAIRS, tmp_path / "out", LORA)
    record = train(base, PAIRS, tmp_path / "out", LORA, resume=True)
    assert record.steps == 12
    resumed, whole = (score(HookedRewardModel.from_pretrained(f, device="cpu"), PAIRS) for f in (tmp_path / "out", trained[0]))
    assert resumed.margin == pytest.approx(whole.margin, abs=2e-2)  # weights are stored as bf16


def test_training_pads_with_a_token_that_no_row_ends_with(tmp_path):
    # Hugging Face reads the reward before the first pad token it meets from the right; chat templates often end with the end token.
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}<end>{% endfor %}"
    tiny_hf_model().save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    chat = TrainingConfig(chat=True, max_length=1000)
    with pytest.raises(InputError, match="every special token"):
        train(str(tmp_path / "base"), PAIRS, tmp_path / "out", chat)
    tokenizer.add_special_tokens({"unk_token": "\u0100"})  # a byte that never occurs
    tokenizer.save_pretrained(tmp_path / "base")
    train(str(tmp_path / "base"), PAIRS, tmp_path / "out", chat)
    model = HookedRewardModel.from_pretrained(tmp_path / "out", device="cpu")
    assert model.tokenizer is not None and model.tokenizer.pad_token == "\u0100" and model.tokenizer.chat_template
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base")
    assert model.hf_config.pad_token_id == model.tokenizer.pad_token_id != theirs.config.pad_token_id


LEFT_OUT = NeuronSet([(0, 3), (0, 40), (1, 7)])


def neuron_weights(folder, layer, neurons):
    """gate, up and down of some neurons, as they are on disk."""
    mlp = AutoModelForSequenceClassification.from_pretrained(folder).model.layers[layer].mlp
    return [mlp.gate_proj.weight[neurons], mlp.up_proj.weight[neurons], mlp.down_proj.weight[:, neurons]]


@pytest.mark.parametrize("how", ["masked", "pruned"])
def test_neurons_that_are_left_out_do_nothing_and_do_not_learn(base, tmp_path, how):
    full = TrainingConfig(method="full", learning_rate=1e-2, epochs=3, batch_size=6, max_length=1000)
    record = train(base, PAIRS, tmp_path / "full", full, without=LEFT_OUT, how=how)
    assert (record.without, record.how) == (3, how)
    for layer, neurons in LEFT_OUT.by_layer().items():
        before, after = (neuron_weights(folder, layer, neurons) for folder in (base, tmp_path / "full"))
        for one, other in zip(before, after, strict=True):
            expected = one.to(torch.bfloat16).float() if how == "masked" else torch.zeros_like(one)
            torch.testing.assert_close(other.float(), expected, rtol=0, atol=0)
        others = [neuron for neuron in range(48) if neuron not in neurons.tolist()]
        assert all(
            (a.to(torch.bfloat16) != b).any()
            for a, b in zip(*(neuron_weights(f, layer, others) for f in (base, tmp_path / "full")), strict=True)
        )


@pytest.mark.parametrize("how", ["masked", "pruned"])
def test_adapters_never_see_neurons_that_are_left_out(base, tmp_path, how):
    """Whatever their weights are, training ends the same; and what is saved does without them."""
    other = tiny_hf_model()
    for layer, neurons in LEFT_OUT.by_layer().items():
        mlp = other.model.layers[layer].mlp
        mlp.gate_proj.weight.data[neurons] = 5.0
        mlp.down_proj.weight.data[:, neurons] = -3.0
    other.save_pretrained(tmp_path / "base")
    byte_tokenizer().save_pretrained(tmp_path / "base")
    scores = {}
    for name, start in {"one": base, "other": str(tmp_path / "base")}.items():
        train(start, PAIRS, tmp_path / name, LORA, without=LEFT_OUT, how=how)
        model = HookedRewardModel.from_pretrained(tmp_path / name, device="cpu")
        scores[name] = score(model, PAIRS, interventions=[ZeroAblation(LEFT_OUT)])
        plain = score(model, PAIRS)
        assert (plain.margin == pytest.approx(scores[name].margin, abs=1e-5)) == (how == "pruned")
    assert scores["one"].margin == pytest.approx(scores["other"].margin, abs=1e-4)


def test_neurons_of_gpt2_are_left_out_too(tmp_path):
    torch.manual_seed(0)
    shape = GPT2Config(vocab_size=257, n_embd=32, n_layer=2, n_head=4, n_positions=1024, bos_token_id=None, eos_token_id=0)
    AutoModelForCausalLM.from_config(shape).save_pretrained(tmp_path / "base")
    byte_tokenizer().save_pretrained(tmp_path / "base")
    full = TrainingConfig(method="full", learning_rate=1e-2, batch_size=6, max_length=1000)
    train(str(tmp_path / "base"), PAIRS, tmp_path / "out", full, without=LEFT_OUT, how="pruned")
    model = HookedRewardModel.from_pretrained(tmp_path / "out", device="cpu")
    assert score(model, PAIRS).margin == pytest.approx(score(model, PAIRS, interventions=[ZeroAblation(LEFT_OUT)]).margin, abs=1e-5)
    assert model.blocks[0].mlp.W_in[:, 40].abs().max() == model.blocks[0].mlp.W_out[3].abs().max() == 0
    with pytest.raises(InputError, match=r"neuron must be in \[0, 128\), got 200"):
        train(str(tmp_path / "base"), PAIRS, tmp_path / "no", full, without=NeuronSet([(0, 200)]))
    with pytest.raises(InputError, match="how must be one of masked, pruned"):
        train(str(tmp_path / "base"), PAIRS, tmp_path / "nope", full, without=LEFT_OUT, how="frozen")  # pyright: ignore[reportArgumentType] - what is refused


@pytest.mark.parametrize("change", [{"max_pairs": 0}, {"epochs": -1.0}, {"lora_rank": 0}, {"learning_rate": 0.0}, {"method": "qlora"}])
def test_configs_that_train_nothing_are_refused(change):
    with pytest.raises(InputError, match=next(iter(change))):
        TrainingConfig(**change)


def test_bad_input(base, tmp_path):
    with pytest.raises(InputError, match="no model found"):
        train(str(tmp_path), PAIRS, tmp_path / "z")
    with pytest.raises(InputError, match=r"max_length must be in \[1, 2048\]"):
        train(base, PAIRS, tmp_path / "y", TrainingConfig(max_length=4096))
    with pytest.raises(InputError, match="every one of 12 pairs is longer than 3 tokens"):
        train(base, PAIRS, tmp_path / "a", TrainingConfig(max_length=3))
    with pytest.raises(InputError, match="no checkpoint to resume from"):
        train(base, PAIRS, tmp_path / "b", resume=True)
    with pytest.raises(InputError, match="no chat template"):
        train(base, PAIRS, tmp_path / "c", TrainingConfig(chat=True))
    assert list(tmp_path.iterdir()) == []
