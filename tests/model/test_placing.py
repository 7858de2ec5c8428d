"""Weights go straight to where they stay: no second copy of a model is there at any time, and what has no room is refused before."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from helpers.architectures import PARITY, hf_model
from helpers.memory import counted
from transformers import AutoModelForSequenceClassification

from tl_reward import devices
from tl_reward.devices import Memory
from tl_reward.errors import InputError, OutOfMemory
from tl_reward.model.checkpoints import loading
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.model.tiny import byte_tokenizer, tiny_hf_model

SIZES = {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 6, "num_attention_heads": 4, "num_key_value_heads": 2}


@pytest.fixture(scope="module", params=["LlamaConfig", "Gemma2Config", "GPTNeoXConfig"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of several files. Gemma-2 scales its embedding, so that it needs a copy; GPT-NeoX splits one weight into three."""
    torch.manual_seed(0)
    config = getattr(transformers, request.param)(vocab_size=257, max_position_embeddings=64, pad_token_id=0, num_labels=1, **SIZES)
    folder = tmp_path_factory.mktemp("model")
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder, max_shard_size="1MB")
    byte_tokenizer().save_pretrained(folder)
    assert (folder / "model.safetensors.index.json").exists()
    return folder


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_model_is_loaded_without_a_second_copy(folder: Path, dtype: torch.dtype):
    model = HookedRewardModel.from_pretrained(folder, dtype=dtype, device="cpu")
    sizes = [each.numel() * each.element_size() for each in model.parameters()]
    del model
    with counted() as memory:
        model = HookedRewardModel.from_pretrained(folder, dtype=dtype, device="cpu")
    assert not any(each.is_meta for each in (*model.parameters(), *model.buffers()))
    # The largest weight twice: as it was read, and in float32 where it is scaled.
    assert sum(sizes) < memory.peak < 1.1 * sum(sizes) + 2 * max(sizes), (sum(sizes), memory)


def test_a_model_in_memory_is_copied_once():
    hf = tiny_hf_model()
    with counted(hf) as memory:
        model = HookedRewardModel.from_hf(hf, device="cpu")
    buffers = sum(each.numel() * each.element_size() for each in model.buffers())
    weights = [each.numel() * 4 for each in model.parameters()]
    assert memory.peak < 1.1 * sum(weights) + 2 * max(weights) + buffers


@pytest.mark.parametrize("name", PARITY)
def test_what_is_read_to_its_place_is_what_was_converted_in_memory(name: str, tmp_path: Path):
    hf = hf_model(name)
    hf.save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    before = {key: value.clone() for key, value in hf.state_dict().items()}
    converted, read = HookedRewardModel.from_hf(hf, device="cpu"), HookedRewardModel.from_pretrained(tmp_path, device="cpu")
    assert all(value.equal(before[key]) for key, value in hf.state_dict().items())
    for (key, one), (_, other) in zip(converted.state_dict().items(), read.state_dict().items(), strict=True):
        if key == "unembed.b_U":  # a product, whose last bit depends on where its factors lie in memory
            torch.testing.assert_close(one, other, atol=0, rtol=1e-5)
        else:
            assert one.equal(other), key
    tokens = torch.arange(1, 60)[None]
    torch.testing.assert_close(converted(tokens), read(tokens), atol=1e-6, rtol=0)


def test_weights_are_asked_for_on_the_device_itself(folder: Path, monkeypatch: pytest.MonkeyPatch):
    asked: list[Any] = []
    own = AutoModelForSequenceClassification.from_pretrained

    def from_pretrained(*args: Any, device_map: Any, **kwargs: Any) -> Any:
        asked.append(device_map)
        return own(*args, device_map={"": "cpu"}, **kwargs)

    monkeypatch.setattr(loading.AutoModelForSequenceClassification, "from_pretrained", from_pretrained)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(loading, "check_fits", lambda *_: None)
    config = loading.load_reward_model(folder, dtype=torch.float32, device="cuda:1", hub={}).model.config
    assert asked == [{"": "cuda:1"}] and config.num_labels == 1


def test_a_model_that_has_no_room_is_refused_before_its_weights_are_read(folder: Path, monkeypatch: pytest.MonkeyPatch):
    stored = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    monkeypatch.setattr(devices, "memory_on", lambda device: Memory(3 * stored // 4, 10**12))
    monkeypatch.setattr(loading.AutoModelForSequenceClassification, "from_pretrained", lambda *_, **__: pytest.fail("read"))
    says = rf"^{folder}: its weights take 0.0\d+ GiB in float32, and 0.0\d+ GiB are free on cpu; what would fit: bfloat16 on cpu$"
    with pytest.raises(OutOfMemory, match=says):
        HookedRewardModel.from_pretrained(folder, device="cpu")


def test_a_model_in_memory_that_has_no_room(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(devices, "memory_on", lambda device: Memory(1000, 10**12))
    with pytest.raises(OutOfMemory, match=r"^LlamaForSequenceClassification: its weights take .*; it fits on no device of this machine$"):
        HookedRewardModel.from_hf(tiny_hf_model(), device="cpu")


def test_memory_that_ends_while_weights_are_read_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: Any, **__: Any) -> Any:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79 GiB")

    monkeypatch.setattr(loading.AutoModelForSequenceClassification, "from_pretrained", full)
    says = rf"^{folder}: out of memory on cpu: 2 GiB more were wanted, and .* are free; what helps: dtype=torch.bfloat16, another device"
    with pytest.raises(OutOfMemory, match=says):
        HookedRewardModel.from_pretrained(folder, device="cpu")


@pytest.mark.parametrize("option", [{"n_devices": 2}, {"device_map": "auto"}, {"max_memory": {0: "10GB"}}], ids=str)
def test_layers_over_several_devices_are_refused(option: dict[str, Any], folder: Path):
    (name,) = option
    with pytest.raises(InputError, match=rf"^{name} is refused: a model is on one device, .*; what fits: .*accelerate launch"):
        HookedRewardModel.from_pretrained(folder, **option)
    cfg = HookedRewardModel.from_hf(tiny_hf_model(), device="cpu").cfg
    cfg.n_devices = 2
    with pytest.raises(InputError, match=r"^n_devices must be 1, got 2: layers are not spread over several devices$"):
        HookedRewardModel(cfg)
