"""A model is known by its weights, not by the name of its folder."""

import copy
import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tl_reward.model.reward_model import HookedRewardModel, load
from tl_reward.model.tiny import byte_tokenizer, tiny_hf_model, tiny_reward_model


def saved(folder: Path, seed: int = 0) -> Path:
    tiny_hf_model(seed=seed).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return saved(tmp_path / "run" / "checkpoint-500")


def test_a_model_from_files_is_its_files(folder):
    origin = load(folder, device="cpu").origin
    assert origin.path == str(folder.resolve())
    assert (origin.architecture, origin.layers, origin.d_model, origin.d_mlp, origin.heads) == ("llama", 2, 32, 48, 4)
    assert origin.weights == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert json.loads(json.dumps(origin.to_json()))["weights"] == origin.weights


def test_two_folders_of_one_name_are_two_models(folder, tmp_path):
    other = saved(tmp_path / "other" / "checkpoint-500", seed=1)
    assert load(folder, device="cpu").origin.weights != load(other, device="cpu").origin.weights
    moved = Path(shutil.copytree(folder, tmp_path / "moved"))
    assert load(folder, device="cpu").origin.weights == load(moved, device="cpu").origin.weights


def test_files_that_nobody_reads_are_no_part_of_a_model(folder):
    before = load(folder, device="cpu").origin
    (folder / "consolidated.safetensors").write_bytes(b"another format of the same weights")
    assert load(folder, device="cpu").origin == before


def test_precision_and_threads_do_not_change_what_a_model_is(folder):
    one = load(folder, device="cpu").origin
    torch.set_num_threads(2)
    try:
        assert load(folder, device="cpu", dtype=torch.bfloat16).origin == one
    finally:
        torch.set_num_threads(1)


def test_a_model_in_memory_is_its_tensors(folder):
    one, same, other = tiny_reward_model(), tiny_reward_model(), tiny_reward_model(seed=1)
    assert one.origin == same.origin and one.origin.path is None
    assert one.origin.weights != other.origin.weights
    before = one.origin.weights
    same(torch.ones(1, 1500, dtype=torch.long))  # rotary tables grow, and are no weights
    assert HookedRewardModel.from_hf(tiny_hf_model()).origin.weights == before
    # A file that is written again after a model was loaded from it says nothing of that model.
    loaded = load(folder, device="cpu")
    saved(folder, seed=1)
    assert loaded.origin.weights == before


def test_a_fresh_head_is_another_model_for_another_seed(tmp_path):
    config = LlamaConfig(vocab_size=257, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4)
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    zero, again, one = (HookedRewardModel.from_base(tmp_path, seed=seed, device="cpu").origin for seed in (0, 0, 1))
    assert zero == again and zero.weights != one.weights and zero.path is None


def test_an_adapter_is_its_own_files_its_scale_and_its_bases(tmp_path):
    from peft import LoraConfig, get_peft_model

    for base in (0, 1):
        saved(tmp_path / f"base{base}", seed=base)
    model = get_peft_model(tiny_hf_model(), LoraConfig(r=2, task_type="SEQ_CLS", target_modules=["q_proj"], modules_to_save=["score"]))
    model.peft_config["default"].base_model_name_or_path = str(tmp_path / "base0")
    model.save_pretrained(str(tmp_path / "adapter"))
    louder = Path(shutil.copytree(tmp_path / "adapter", tmp_path / "louder"))
    config = json.loads((louder / "adapter_config.json").read_text())
    (louder / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": 99}))
    found = [
        load(tmp_path / "adapter", device="cpu").origin,
        load(tmp_path / "adapter", base=tmp_path / "base1", device="cpu").origin,
        load(louder, device="cpu").origin,
    ]
    assert len({origin.weights for origin in found}) == 3
    assert load(tmp_path / "adapter", base=tmp_path / "base0", device="cpu").origin == found[0]


def rebind(model: HookedRewardModel) -> None:
    model.blocks[0].mlp.W_out = torch.nn.Parameter(model.blocks[0].mlp.W_out * 2)


def one_number(model: HookedRewardModel) -> None:
    model.blocks[1].attn.W_Q.data[0, 0, 0] += 1e-3


def one_neuron(model: HookedRewardModel) -> None:
    with torch.no_grad():
        model.blocks[0].mlp.W_out[3] = 0


def head(model: HookedRewardModel) -> None:
    model.W_U.data.neg_()


def shuffled(model: HookedRewardModel) -> None:
    """The same numbers in other places: a usual control."""
    weight = model.blocks[0].mlp.W_in
    weight.data = weight.data[:, torch.randperm(weight.shape[1], generator=torch.Generator().manual_seed(0))]


def two_heads(model: HookedRewardModel) -> None:
    model.blocks[1].attn.W_O.data = model.blocks[1].attn.W_O.data.flip(0)


def after_a_cast(model: HookedRewardModel) -> None:
    model.half()
    one_neuron(model)


@pytest.mark.parametrize("edit", [rebind, one_number, one_neuron, head, shuffled, two_heads, after_a_cast])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_edited_in_memory_are_not_those_of_the_files(folder, edit, dtype):
    model = load(folder, device="cpu", dtype=dtype)
    before = model.origin
    assert not before.edited and "edited" not in before.to_json()
    edit(model)
    after = model.origin
    assert after.edited and after.to_json()["edited"] is True and after.weights != before.weights and after.path == before.path
    assert model.origin == after


def test_moving_running_and_copying_a_model_edits_nothing(folder):
    model = load(folder, device="cpu")
    model(torch.ones(1, 1500, dtype=torch.long))  # rotary tables grow
    before = model.origin
    assert not before.edited and copy.deepcopy(model).origin == before
    copied = copy.deepcopy(model)
    head(copied)
    assert copied.origin.edited and not model.origin.edited
    assert not model.to(torch.float64).origin.edited and not model.half().origin.edited
    assert copied.bfloat16().origin.edited


def test_a_model_in_memory_that_is_edited_is_another_one():
    model = tiny_reward_model()
    before = model.origin
    head(model)
    assert model.origin.weights != before.weights and not model.origin.edited
