"""A batch in several passes is the batch; how long a pass is follows from memory, which is counted here; what happens where it runs out."""

import dataclasses
import json
import warnings
from math import ceil
from typing import Any

import pytest
import torch
from helpers.live_bytes import LiveBytes
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, Gemma2Config, GPT2Config, LlamaConfig

from tl_reward.data.readers import load_pairs
from tl_reward.errors import InputError, OutOfMemory
from tl_reward.model.tiny import byte_tokenizer
from tl_reward.model.training import TrainingConfig, preparation, train, trainer
from tl_reward.model.training.micro_batches import USED

pytest.importorskip("trl")

PAIRS = load_pairs("embedded", objective="harmless", split="find", limit=11)
FULL = TrainingConfig(method="full", learning_rate=3e-4, epochs=2, batch_size=8, max_length=1000, save_every=1)
LORA = dataclasses.replace(FULL, method="lora", learning_rate=1e-3)
SHORT = dataclasses.replace(FULL, epochs=1, max_pairs=8)


@pytest.fixture
def float32(monkeypatch):
    monkeypatch.setattr(preparation, "has_bf16", lambda: False)


def weights(folder) -> dict[str, torch.Tensor]:
    return load_file(next(folder.glob("*.safetensors")))


def differs(one, other) -> float:
    one, other = weights(one), weights(other)
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def at_once(pairs: int):
    """In the place of `number_of_parts`: so many pairs a pass."""
    return lambda lengths, tokens: ceil(len(lengths) / pairs)


@pytest.mark.parametrize("config", [FULL, LORA], ids=["full", "lora"])
def test_a_batch_in_several_passes_is_the_batch(base, tmp_path, monkeypatch, float32, config):
    """11 pairs: a batch of 8 and one of 3. In passes of 5, both are in unequal parts."""
    curves = []
    monkeypatch.setattr(trainer, "losses_of", lambda log: curves.append(losses := LOSSES_OF(log)) or losses)
    for pairs in (8, 5, 2, 1):
        with monkeypatch.context() as patch:
            patch.setattr(trainer, "number_of_parts", at_once(pairs))
            record = train(base, PAIRS, tmp_path / str(pairs), config)
        assert (record.steps, record.most_pairs_at_once) == (4, min(pairs, 4) if pairs == 5 else pairs)
        assert curves[-1] == pytest.approx(curves[0], abs=1e-5) and len(curves[-1]) == 4
        assert differs(tmp_path / "8", tmp_path / str(pairs)) < 1e-5
    assert differs(tmp_path / "8", tmp_path / "1") > 0 and curves[0][0] != curves[0][-1]  # else nothing was tested


LOSSES_OF = trainer.losses_of


def test_a_batch_in_one_pass_is_what_trl_makes_of_it(base, tmp_path, monkeypatch):
    train(base, PAIRS, tmp_path / "ours", LORA)
    for name in ("training_step", "compute_loss"):
        monkeypatch.delattr(trainer.PairTrainer, name)
    train(base, PAIRS, tmp_path / "theirs", LORA)
    assert (tmp_path / "ours" / WEIGHTS).read_bytes() == (tmp_path / "theirs" / WEIGHTS).read_bytes()


WEIGHTS = "adapter_model.safetensors"


class Cut(BaseException):
    pass


def test_a_training_goes_on_with_other_passes(base, tmp_path, monkeypatch, float32):
    """How long a pass was is recorded, and no part of what a training was begun with."""
    monkeypatch.setattr(trainer, "number_of_parts", at_once(8))
    train(base, PAIRS, tmp_path / "whole", FULL)
    saved = [2]

    def cut(*args, **kwargs):
        saved[0] -= 1
        if saved[0] < 0:
            raise Cut
        return step(*args, **kwargs)

    step = trainer.PairTrainer.training_step
    with monkeypatch.context() as patch:
        patch.setattr(trainer.PairTrainer, "training_step", cut)
        with pytest.raises(Cut):
            train(base, PAIRS, tmp_path / "out", FULL)
    monkeypatch.setattr(trainer, "number_of_parts", at_once(2))
    assert train(base, PAIRS, tmp_path / "out", FULL, resume=True).most_pairs_at_once == 2
    assert json.loads((tmp_path / "out" / "training.json").read_text())["most_pairs_at_once"] == 2
    assert 0 < differs(tmp_path / "whole", tmp_path / "out") < 1e-5


GPT2 = GPT2Config(vocab_size=257, n_embd=64, n_layer=3, n_head=4, n_positions=1024, bos_token_id=None, eos_token_id=0)
SHAPE: dict[str, Any] = {"vocab_size": 257, "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2}
LLAMA = LlamaConfig(**SHAPE, intermediate_size=160, pad_token_id=0)
GEMMA = Gemma2Config(**SHAPE, intermediate_size=96, head_dim=16, query_pre_attn_scalar=16, pad_token_id=0)
SHAPES = {"llama": LLAMA, "gpt2": GPT2, "gemma2": GEMMA}


@pytest.mark.parametrize(
    ("shape", "method", "bf16"), [("llama", "full", True), ("llama", "lora", True), ("gpt2", "full", False), ("gemma2", "lora", False)]
)
def test_what_a_step_takes_is_what_was_free(tmp_path, monkeypatch, shape, method, bf16):
    """Bytes of tensors at the peak of a whole step, optimiser included, counted from outside: never more than what was said to be free, and
    no less than a third of it, where a pass is of several pairs but not of all."""
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(SHAPES[shape]).save_pretrained(tmp_path / "base")
    byte_tokenizer().save_pretrained(tmp_path / "base")
    monkeypatch.setattr(preparation, "has_bf16", lambda: bf16)
    config = TrainingConfig(method=method, learning_rate=1e-4, batch_size=8, max_length=700, max_pairs=8)
    take, plan = {}, trainer.tokens_that_fit

    def planned(takes, free, later):
        longest = 700
        take["free"] = int((later + takes.fixed + 2 * 3 * longest * takes.per_token) / USED)
        return plan(takes, take["free"], later)

    monkeypatch.setattr(trainer, "tokens_that_fit", planned)
    fit = trainer.PairTrainer._tokens_that_fit
    live = LiveBytes()

    def fitted(self):
        found = fit(self)
        live.__enter__()
        return found

    monkeypatch.setattr(trainer.PairTrainer, "_tokens_that_fit", fitted)
    try:
        record = train(str(tmp_path / "base"), PAIRS, tmp_path / "out", config)
    finally:
        live.__exit__(None, None, None)
    assert 1 < record.most_pairs_at_once < 8
    assert take["free"] / 3 < live.peak < take["free"]


def short_of_memory(monkeypatch, most: int, *, from_step: int = 0, calls: list[int] | None = None):
    """A stand-in for a device on which no more pairs than `most` fit into a pass."""
    loss = trainer.RewardTrainer.compute_loss

    def short(self, model, inputs, *args, **kwargs):
        pairs = len(inputs["input_ids"]) // 2
        if calls is not None:
            calls.append(pairs)
        if pairs > most and self.state.global_step >= from_step:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB.\nSee the documentation")
        return loss(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(trainer.RewardTrainer, "compute_loss", short)


def test_out_of_memory_halves_a_pass_once_and_says_so(base, tmp_path, monkeypatch, float32):
    config = dataclasses.replace(FULL, max_pairs=8)
    train(base, PAIRS, tmp_path / "whole", config)
    calls: list[int] = []
    short_of_memory(monkeypatch, 4, calls=calls)
    with pytest.warns(UserWarning, match=r"out of memory in training: step 1, of 8 pairs of up to \d+ tokens at once .* half as many"):
        record = train(base, PAIRS, tmp_path / "halved", config)
    assert calls == [8, 4, 4, 4, 4] and record.most_pairs_at_once == 4
    assert 0 < differs(tmp_path / "whole", tmp_path / "halved") < 1e-5


def test_what_a_step_had_added_up_before_it_ran_out_of_memory_is_dropped(base, tmp_path, monkeypatch, float32):
    config = dataclasses.replace(FULL, max_pairs=8)
    train(base, PAIRS, tmp_path / "whole", config)
    calls, loss = [], trainer.RewardTrainer.compute_loss

    def short(self, model, inputs, *args, **kwargs):
        calls.append(len(inputs["input_ids"]) // 2)
        if len(calls) > 1 and calls[-1] > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return loss(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(trainer.PairTrainer, "_tokens_that_fit", lambda self: 2 * 4 * max(self.train_dataset["length"][:]))
    monkeypatch.setattr(trainer.RewardTrainer, "compute_loss", short)
    with pytest.warns(UserWarning, match="step 1, of 4 pairs"):
        train(base, PAIRS, tmp_path / "halved", config)
    assert calls[:2] == [4, 4] and calls[2] < 4
    assert 0 < differs(tmp_path / "whole", tmp_path / "halved") < 1e-5


def test_out_of_memory_after_that_is_one_line_and_what_was_saved_stays(base, tmp_path, monkeypatch, float32):
    with monkeypatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that passes are halved
        short_of_memory(patch, 3, from_step=2)
        with pytest.raises(OutOfMemory) as caught:
            train(base, PAIRS, tmp_path / "out", FULL)
    said = str(caught.value)
    assert isinstance(caught.value, InputError) and len(said.splitlines()) == 1
    for part in ("step 3, of 4 pairs of up to", "Tried to allocate 9.00 GiB", "GiB were free on cpu", "method lora", "resume goes on"):
        assert part in said, said
    with monkeypatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        short_of_memory(patch, 0)
        patch.setattr(trainer, "number_of_parts", at_once(1))
        with pytest.raises(OutOfMemory, match=r"step 3, of one pair of \d+ tokens"):  # nothing to halve
            train(base, PAIRS, tmp_path / "out", FULL, resume=True)
    assert train(base, PAIRS, tmp_path / "out", FULL, resume=True).steps == 4


def test_out_of_memory_outside_a_pass_is_one_line_too(base, tmp_path, monkeypatch):
    def step(*args, **kwargs):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    with pytest.raises(OutOfMemory, match=r"out of memory in training: .*can't allocate memory.* on cpu; a shorter max_length or more"):
        train(base, PAIRS, tmp_path / "out", LORA)


def test_what_will_hardly_fit_is_said_before_the_first_step(base, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "free_bytes", lambda device: 2**20)
    with pytest.warns(UserWarning, match=r"a training step of one pair takes about \S+ GiB; 0.000977 GiB are free on cpu"):
        assert train(base, PAIRS, tmp_path / "out", SHORT).most_pairs_at_once == 1


def test_frozen_weights_are_bfloat16_and_trained_ones_float32(base, tmp_path, monkeypatch):
    monkeypatch.setattr(preparation, "has_bf16", lambda: True)
    prepared = preparation.prepare(base, PAIRS, LORA)
    made = trainer.make_trainer(prepared, LORA, 1e-3, tmp_path)
    assert made.model is not None
    kinds = {(parameter.requires_grad, parameter.dtype) for parameter in made.model.parameters()}
    assert kinds == {(False, torch.bfloat16), (True, torch.float32)}


def test_several_gpus_make_no_larger_batch(tmp_path, monkeypatch):
    """Transformers would run a batch on each, in threads."""
    monkeypatch.setattr(trainer.RewardConfig, "n_gpu", property(lambda self: 4))
    assert vars(trainer._arguments(FULL, 1e-3, tmp_path, False))["_n_gpu"] == 1
