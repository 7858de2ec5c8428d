"""Training, on a tiny model: it learns, resumes, and its folder loads here and in Hugging Face."""

import dataclasses
import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from helpers.short_pairs import embedded_pairs
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, GPT2Config, LlamaConfig, LlamaForCausalLM, Phi3Config

from tl_reward.errors import InputError
from tl_reward.interventions.ablations import ZeroAblation
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.model.tiny import byte_tokenizer, tiny_hf_model
from tl_reward.model.training import TrainingConfig, begun, bradley_terry, train, trainer
from tl_reward.model.training.finite import check_finite
from tl_reward.neurons import NeuronSet
from tl_reward.running.scoring import score

PAIRS = embedded_pairs("find", 12, "harmless")
LORA = TrainingConfig(learning_rate=3e-2, epochs=6, batch_size=6, max_length=1000, save_every=2)


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


def other_base(folder) -> dict:
    tiny_hf_model(seed=1).save_pretrained(folder / "other")
    byte_tokenizer().save_pretrained(folder / "other")
    return {"base": str(folder / "other")}


# What a training may have been begun with that is another.
OTHERS = {
    "base's weights": other_base,
    r"pairs \(or": lambda _: {"pairs": PAIRS[::-1]},
    "base's weights; another seed 0, now 1": lambda _: {"config": dataclasses.replace(LORA, seed=1)},
    "learning_rate 0.03, now 0.01": lambda _: {"config": dataclasses.replace(LORA, learning_rate=1e-2)},
    "without": lambda _: {"without": LEFT_OUT},
}
LEFT_OUT = NeuronSet([(0, 3), (0, 40), (1, 7)])


def test_a_killed_training_resumes_from_its_checkpoint_and_ends_like_one_that_was_not(base, trained, tmp_path, scripts):
    (tmp_path / "killed.py").write_text(f"""
import os, sys
sys.path.append({str(Path(__file__).parents[1])!r})
from helpers.short_pairs import embedded_pairs
from tl_reward.model.training import TrainingConfig, begun, bradley_terry, train, trainer
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
pairs = embedded_pairs("find", 12, "harmless")
train({base!r}, pairs, {str(tmp_path / "out")!r}, {LORA!r})
""")
    assert scripts.run(tmp_path / "killed.py").status == 9
    assert not (tmp_path / "out" / "training.json").exists()
    with pytest.raises(InputError, match="exists"):
        train(base, PAIRS, tmp_path / "out", LORA)
    kept = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    for other, change in OTHERS.items():
        given = {"base": base, "pairs": PAIRS, "config": LORA, **change(tmp_path)}
        with pytest.raises(InputError, match=f"begun with another {other}") as caught:
            train(output=tmp_path / "out", resume=True, **given)
        assert len(str(caught.value).splitlines()) == 1
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == kept
    record = train(base, PAIRS, tmp_path / "out", LORA, resume=True)
    assert record.steps == 12
    resumed, whole = (score(HookedRewardModel.from_pretrained(f, device="cpu"), PAIRS) for f in (tmp_path / "out", trained[0]))
    assert resumed.margin.tolist() == whole.margin.tolist()
    assert record.mean_loss == trained[1].mean_loss


class Cut(BaseException):
    pass


SHORT = dataclasses.replace(LORA, epochs=1, save_every=1)


@pytest.fixture(scope="module")
def short(base, tmp_path_factory):
    train(base, PAIRS, tmp_path_factory.mktemp("short") / "lora", SHORT)
    return tmp_path_factory.getbasetemp() / "short0" / "lora"


@pytest.mark.parametrize(("place", "resume"), [("begin", True), ("_save_checkpoint", False)])
def test_cut_short_before_its_first_save_it_starts_anew(base, short, tmp_path, monkeypatch, place, resume):
    def cut(self_or_output, *args, **kwargs):
        if place == "_save_checkpoint":  # in the middle of it
            (tmp_path / "out" / "checkpoints" / "checkpoint-1").mkdir()
        raise Cut

    owner, name = {"begin": (begun.os, "replace"), "_save_checkpoint": (trainer.PairTrainer, "_save_checkpoint")}[place]
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, cut)
        with pytest.raises(Cut):
            train(base, PAIRS, tmp_path / "out", SHORT)
    with pytest.raises(InputError):
        HookedRewardModel.from_pretrained(tmp_path / "out")
    train(base, PAIRS, tmp_path / "out", SHORT, resume=resume)
    assert (tmp_path / "out" / WEIGHTS).read_bytes() == (short / WEIGHTS).read_bytes()


WEIGHTS = "adapter_model.safetensors"


def test_cut_short_while_it_is_put_in_place_it_is_no_model_and_goes_on(base, short, tmp_path, monkeypatch):
    """Its files are moved one by one, and the folder is a model with the last but one, and a finished training with the last."""
    put, left = bradley_terry.os.replace, [4]

    def cut(source, target):
        if Path(target).parent == tmp_path / "out":
            left[0] -= 1
            if left[0] < 0:
                raise Cut
        put(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(bradley_terry.os, "replace", cut)
        with pytest.raises(Cut):
            train(base, PAIRS, tmp_path / "out", SHORT)
    names = {path.name for path in (tmp_path / "out").iterdir()} - {"checkpoints"}
    assert not {"training.json", "adapter_config.json"} & names and len(names) == 4
    with pytest.raises(InputError):
        HookedRewardModel.from_pretrained(tmp_path / "out")
    train(base, PAIRS, tmp_path / "out", SHORT, resume=True)
    assert (tmp_path / "out" / WEIGHTS).read_bytes() == (short / WEIGHTS).read_bytes()
    assert {path.name for path in (tmp_path / "out").iterdir()} == {path.name for path in short.iterdir()}


@pytest.mark.parametrize("left", [("checkpoint-2/a", "begun.json"), ("begun.json",), ()])
def test_cut_short_after_its_end_it_is_cleaned_up(base, short, tmp_path, left):
    shutil.copytree(short, tmp_path / "out")
    (tmp_path / "out" / "checkpoints").mkdir()
    for name in left:
        path = tmp_path / "out" / "checkpoints" / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    with pytest.raises(InputError, match="exists, with a finished training"):
        train(base, PAIRS, tmp_path / "out", SHORT, resume=True)
    assert not (tmp_path / "out" / "checkpoints").exists()


def test_a_folder_of_something_else_is_left_alone(base, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "mine").touch()
    for resume in (True, False):
        with pytest.raises(InputError, match="exists, with no checkpoint to resume from"):
            train(base, PAIRS, tmp_path, LORA, resume=resume)
    assert (tmp_path / "checkpoints" / "mine").exists()


def test_a_training_that_diverged_saves_nothing(base, tmp_path, monkeypatch):
    full = TrainingConfig(method="full", learning_rate=1e30, epochs=6, batch_size=6, max_length=1000, max_pairs=6)
    with pytest.raises(InputError, match=r"the training diverged by step 5: its loss is nan; a lower learning_rate may help") as caught:
        train(base, PAIRS, tmp_path / "a", full)
    assert len(str(caught.value).splitlines()) == 1
    # Where only the weights tell, after the last step.
    monkeypatch.setattr(trainer, "check_finite", lambda *args: None)
    monkeypatch.setattr(bradley_terry, "check_finite", lambda step, losses, model: check_finite(step, [0.5], model))
    with pytest.raises(InputError, match=r"the training diverged by step 6: \S+ is not finite"):
        train(base, PAIRS, tmp_path / "b", full)
    assert not list(tmp_path.rglob("training.json")) and not list(tmp_path.glob("*/*.safetensors"))


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


def neuron_weights(folder, layer, neurons):
    """gate, up and down of some neurons, as they are on disk."""
    mlp = AutoModelForSequenceClassification.from_pretrained(folder).model.layers[layer].mlp
    return [mlp.gate_proj.weight[neurons], mlp.up_proj.weight[neurons], mlp.down_proj.weight[:, neurons]]


@pytest.mark.parametrize("how", ["masked", "pruned"])
def test_neurons_that_are_left_out_do_nothing_and_do_not_learn(base, tmp_path, how):
    full = TrainingConfig(method="full", learning_rate=1e-2, epochs=3, batch_size=6, max_length=1000)
    record = train(base, PAIRS, tmp_path / "full", full, without=LEFT_OUT, how=how)
    assert (record.without, record.how) == (3, how)
    saved = torch.bfloat16 if record.bf16 else torch.float32  # not every CPU multiplies bfloat16
    for layer, neurons in LEFT_OUT.by_layer().items():
        before, after = (neuron_weights(folder, layer, neurons) for folder in (base, tmp_path / "full"))
        for one, other in zip(before, after, strict=True):
            expected = one.to(saved).float() if how == "masked" else torch.zeros_like(one)
            torch.testing.assert_close(other.float(), expected, rtol=0, atol=0)
        others = [neuron for neuron in range(48) if neuron not in neurons.tolist()]
        assert all(
            (a.to(saved) != b).any() for a, b in zip(*(neuron_weights(f, layer, others) for f in (base, tmp_path / "full")), strict=True)
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


_GPT2 = GPT2Config(vocab_size=257, n_embd=32, n_layer=2, n_head=4, n_positions=1024, bos_token_id=None, eos_token_id=0)
_PHI3 = Phi3Config(
    vocab_size=257, hidden_size=32, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=1024,
    original_max_position_embeddings=1024, bos_token_id=None, eos_token_id=0, pad_token_id=0,
)  # fmt: skip


@pytest.mark.parametrize("shape", [_GPT2, _PHI3], ids=["GPT-2, whose weights lie the other way round", "Phi-3, with two in one tensor"])
def test_neurons_of_other_layouts_are_left_out_too(shape, tmp_path):
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(shape).save_pretrained(tmp_path / "base")
    byte_tokenizer().save_pretrained(tmp_path / "base")
    full = TrainingConfig(method="full", learning_rate=1e-2, batch_size=6, max_length=1000)
    train(str(tmp_path / "base"), PAIRS, tmp_path / "out", full, without=LEFT_OUT, how="pruned")
    model = HookedRewardModel.from_pretrained(tmp_path / "out", device="cpu")
    assert score(model, PAIRS).margin == pytest.approx(score(model, PAIRS, interventions=[ZeroAblation(LEFT_OUT)]).margin, abs=1e-5)
    mlp = model.blocks[0].mlp
    into = [mlp.W_in, mlp.W_gate] if shape is _PHI3 else [mlp.W_in]
    assert all(weight[:, 40].abs().max() == 0 < weight[:, 41].abs().max() for weight in [*into, mlp.W_out.T])
    with pytest.raises(InputError, match=r"neuron must be in \[0, 128\), got 200"):
        train(str(tmp_path / "base"), PAIRS, tmp_path / "no", full, without=NeuronSet([(0, 200)]))
    with pytest.raises(InputError, match="how must be one of masked, pruned"):
        train(str(tmp_path / "base"), PAIRS, tmp_path / "nope", full, without=LEFT_OUT, how="frozen")  # pyright: ignore[reportArgumentType] - what is refused


@pytest.mark.parametrize(
    "change",
    [{"max_pairs": 0}, {"epochs": -1.0}, {"lora_rank": 0}, {"learning_rate": 0.0}, {"learning_rate": math.inf}, {"method": "qlora"}],
)
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
