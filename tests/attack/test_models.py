"""Malformed and hostile checkpoints: each is refused in one line, or gives the right rewards; soon, and without much memory."""

import json
import random
import re
import shutil
import struct
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from helpers.attack import tries
from safetensors.torch import load_file, save_file
from torch import Tensor

from tl_reward.errors import InputError
from tl_reward.model.checkpoints import adapters
from tl_reward.model.reward_model import HookedRewardModel, load
from tl_reward.model.tiny import byte_tokenizer, tiny_hf_model

resource = pytest.importorskip("resource")  # not on Windows
TOKENS = torch.tensor([[5, 6, 7, 8]])
SECONDS, BYTES = 60, 2**30
Damage = Callable[[Path], Any]


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "sound"
    tiny_hf_model().save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def reward(sound) -> float:
    return load(sound, device="cpu")(TOKENS).item()


@pytest.fixture
def folder(sound, tmp_path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "model"))


@pytest.fixture(autouse=True)
def bounded() -> Iterator[None]:
    start, peak = time.monotonic(), _peak()
    yield
    assert time.monotonic() - start < SECONDS
    assert _peak() - peak < BYTES


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def outcome(fn: Callable[[], HookedRewardModel], reward: float) -> str:
    """What loading says, in one line; "right" where it gives the right reward."""
    try:
        found = fn()(TOKENS).item()
    except InputError as error:
        return str(error)
    return "right" if found == pytest.approx(reward, abs=1e-5) else f"wrong: {found} for {reward}"


def fits(said: str, expected: str) -> bool:
    assert "\n" not in said.strip()
    return (said == "right" and "right" in expected.split("|")) or (said != "right" and re.search(expected, said) is not None)


def config(**change: Any) -> Damage:
    def damage(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | change))

    return damage


def weights(change: Callable[[dict[str, Tensor]], Any]) -> Damage:
    def damage(folder: Path) -> None:
        found = load_file(folder / "model.safetensors")
        change(found)
        save_file(found, folder / "model.safetensors", metadata={"format": "pt"})

    return damage


def bytes_of(name: str, change: Callable[[bytes], bytes]) -> Damage:
    return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes()))


def written(name: str, text: str) -> Damage:
    return lambda folder: (folder / name).write_text(text)


def sharded(weight_map: Any) -> Damage:
    def damage(folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / "a.safetensors")
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))

    return damage


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch /tmp/never'\ntR.")


def _set(key: str, value: Any) -> Callable[[dict[str, Tensor]], Any]:
    def change(found: dict[str, Tensor]) -> None:
        found[key] = cast(Tensor, value(found[key]) if callable(value) else value)

    return change


UP, NORM = "model.layers.1.mlp.up_proj.weight", "model.norm.weight"
CASES: dict[str, tuple[Damage, str]] = {
    # What config.json says.
    "d_model of 10^9": (config(hidden_size=10**9), "config.json asks for"),
    "negative d_model": (config(hidden_size=-32), "integers from 1"),
    "no d_model": (config(hidden_size=0), "config"),
    "d_model as text": (config(hidden_size="thirty-two"), "config.json is not|config.json says"),
    "odd d_model": (config(hidden_size=31), "config.json asks for|config.json says|config.json is not"),
    "no layers": (config(num_hidden_layers=0), "integers from 1"),
    "minus one layer": (config(num_hidden_layers=-1), "of -1 layers"),
    "fewer layers": (config(num_hidden_layers=1), r"9 weights in the files have no place.*model\.layers\.1"),
    "more layers": (config(num_hidden_layers=3), r"lacks 9 weights.*model\.layers\.2"),
    "10^6 layers": (config(num_hidden_layers=10**6), "asks for 1000000 layers, and the files hold 21 weights"),
    "no heads": (config(num_attention_heads=0), "config"),
    "minus four heads": (config(num_attention_heads=-4, head_dim=8), "integers from 1"),
    "three heads": (config(num_attention_heads=3), "config"),
    "heads that cannot share": (config(num_attention_heads=4, num_key_value_heads=3), "evenly"),
    "no key heads": (config(num_key_value_heads=0), "config.json asks for|config.json says|config.json is not"),
    "d_mlp of 10^9": (config(intermediate_size=10**9), "config.json asks for"),
    "vocabulary of 10^9": (config(vocab_size=10**9), "embed_tokens.weight is 257×32"),
    "no vocabulary": (config(vocab_size=0, pad_token_id=None), "integers from 1|config.json is not"),
    "context of 10^9": (config(max_position_embeddings=10**9), "right"),
    "no context": (config(max_position_embeddings=0), "integers from 1"),
    "eps as text": (config(rms_norm_eps="x"), "config.json is not|config.json says"),
    "eps that is no number": (config(rms_norm_eps=float("nan")), "eps in a config is a number above 0"),
    "negative eps": (config(rms_norm_eps=-1.0), "eps in a config is a number above 0"),
    "rope as text": (config(rope_parameters="x"), "config"),
    "negative rope": (config(rope_parameters={"rope_type": "default", "rope_theta": -5.0}), "rotary_base in a config"),
    "unknown rope": (config(rope_parameters={"rope_type": "spiral", "rope_theta": 1e4}), "rotary scaling 'spiral'|config.json is not"),
    "odd head": (config(head_dim=7), "7 rotary dimensions|config.json is not"),
    "wide head": (config(head_dim=16), "16×32 in the file, and config.json asks for 32×32"),
    "other activation": (config(hidden_act="tanh"), "activation 'tanh'"),
    "activation as number": (config(hidden_act=5), "activation 5|config.json is not"),
    "other family": (config(model_type="bert"), "architecture 'bert' is not supported"),
    "unknown family": (config(model_type="nonsense"), "'nonsense' is not supported"),
    "no family": (config(model_type=None), "config.json is not"),
    "family as list": (config(model_type=["llama"]), "config.json is not"),
    "no class": (config(architectures=None), "right"),
    "two outputs": (config(id2label={"0": "a", "1": "b"}), "found 2 outputs"),
    "gptq": (config(quantization_config={"quant_method": "gptq", "bits": 4}), r"quantised \(gptq\)"),
    "bitsandbytes": (config(quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True}), r"quantised \(bitsandbytes\)"),
    "awq": (config(quantization_config={"quant_method": "awq", "bits": 4}), r"quantised \(awq\)"),
    "biases of attention": (config(attention_bias=True), "lacks 8 weights"),
    "biases of the MLP": (config(mlp_bias=True), "mlp_bias"),
    "weights elsewhere": (config(transformers_weights="../x.safetensors"), "transformers_weights"),
    "unknown precision": (config(dtype="float7"), "config.json is not|weights could not|right|config.json says"),
    "pad token of 10^9": (config(pad_token_id=10**9), "right|config.json is not|config.json says"),
    "empty config": (written("config.json", ""), "config.json is not"),
    "config as list": (written("config.json", "[1]"), "config.json is not"),
    "deep config": (written("config.json", '{"a":' * 100_000 + "1" + "}" * 100_000), "config.json is not"),
    "binary config": (bytes_of("config.json", lambda data: bytes(range(256))), "config.json is not"),
    # What the weight files hold.
    "unmerged adapter": (weights(_set("model.layers.0.self_attn.q_proj.lora_A.weight", torch.ones(2, 32))), r"lora_A.*merge_and_unload"),
    "bias of the head": (weights(_set("score.bias", torch.ones(1))), r"score\.bias"),
    "bias without a place": (weights(_set("model.layers.0.self_attn.q_proj.bias", torch.ones(32))), r"q_proj\.bias"),
    "rotary tables": (weights(_set("model.layers.0.self_attn.rotary_emb.inv_freq", torch.ones(4))), "right"),
    "output embedding": (weights(_set("lm_head.weight", torch.ones(257, 32))), "right"),
    "missing weight": (weights(lambda found: found.pop(UP)), rf"lacks 1 weights.*{UP}"),
    "swapped shape": (weights(_set(UP, lambda value: value.T.contiguous())), "32×48 in the file"),
    "no numbers": (weights(_set(UP, torch.ones(0, 32))), "0×32 in the file"),
    "integers": (weights(_set(UP, lambda value: value.to(torch.int8))), "stored as I8"),
    "NaN": (weights(_set(NORM, lambda value: value.index_fill(0, torch.tensor([3]), torch.nan))), f"{NORM} holds numbers that are not"),
    "infinity": (weights(_set(UP, lambda value: value / 0)), f"{UP} holds numbers that are not finite"),
    "cut": (bytes_of("model.safetensors", lambda data: data[:-100]), "damaged, or no safetensors"),
    "cut in the header": (bytes_of("model.safetensors", lambda data: data[:100]), "damaged, or no safetensors"),
    "empty weights": (bytes_of("model.safetensors", lambda data: b""), "damaged, or no safetensors"),
    "a header of 2^62 bytes": (bytes_of("model.safetensors", lambda data: struct.pack("<Q", 2**62) + data[8:]), "damaged"),
    "a tensor of 10^12 bytes": (bytes_of("model.safetensors", lambda data: data.replace(b"[48,32]", b"[48, 9]")), "damaged"),
    "text as weights": (written("model.safetensors", "hello"), "damaged"),
    "pickles": (pickled, "pytorch_model.bin is a pickle.*Convert it"),
    "an index": (sharded({UP: "a.safetensors"}), "right"),
    "an index that points outside": (sharded({UP: "../a.safetensors"}), "in the folder itself"),
    "an index with an absolute path": (sharded({UP: "/etc/passwd"}), "in the folder itself"),
    "an index of a file that is not there": (sharded({UP: "b.safetensors"}), "names b.safetensors, which is not there"),
    "an index of numbers": (sharded({UP: 5}), "index.json is not readable"),
    "an index as list": (sharded([1]), "index.json is not readable"),
    # The tokenizer.
    "no tokenizer": (lambda folder: [path.unlink() for path in folder.glob("tokenizer*")], "no tokenizer found"),
    "tokenizer of nonsense": (written("tokenizer.json", "hello"), "no tokenizer found"),
    "tokenizer of nothing": (written("tokenizer.json", "{}"), "no tokenizer found"),
    "tokenizer as list": (written("tokenizer.json", "[]"), "no tokenizer found"),
    "tokenizer config of nonsense": (written("tokenizer_config.json", "[1"), "no tokenizer found"),
    "unknown tokenizer": (written("tokenizer_config.json", '{"tokenizer_class": "Nonsense"}'), "no tokenizer found|right"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_damaged_checkpoint_is_refused_in_a_line_or_right(name, folder, reward):
    damage, expected = CASES[name]
    damage(folder)
    said = outcome(lambda: load(folder, device="cpu"), reward)
    assert fits(said, expected), said


def test_flipped_bits_in_a_header_are_refused_or_change_nothing(folder, reward):
    data = (folder / "model.safetensors").read_bytes()
    length = 8 + struct.unpack("<Q", data[:8])[0]
    draw = random.Random(0)
    for _ in range(tries(25, 600)):
        at, bit = draw.randrange(length), 1 << draw.randrange(8)
        (folder / "model.safetensors").write_bytes(data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :])
        assert not outcome(lambda: load(folder, device="cpu"), reward).startswith("wrong"), (at, bit)


PLANTED = "import pathlib\npathlib.Path({target!r}).write_text('ran')\nclass C:\n    pass\n"


@pytest.mark.parametrize(
    "change",
    [
        config(model_type="planted", auto_map={"AutoConfig": "planted.C"}),
        config(auto_map={"AutoConfig": "planted.C", "AutoModelForSequenceClassification": "planted.C"}),
        lambda folder: (folder / "tokenizer_config.json").write_text(
            json.dumps({"tokenizer_class": "C", "auto_map": {"AutoTokenizer": [None, "planted.C"]}})
        ),
    ],
    ids=["config", "model", "tokenizer"],
)
def test_no_code_of_a_checkpoint_runs_whatever_is_answered(change, folder, reward, monkeypatch):
    target = folder / "ran"
    (folder / "planted.py").write_text(PLANTED.format(target=str(target)))
    change(folder)
    asked: list[str] = []
    monkeypatch.setattr("builtins.input", lambda *prompt: asked.append(str(prompt)) or "y")
    said = [
        outcome(make, reward) for make in (lambda: load(folder, device="cpu"), lambda: HookedRewardModel.from_base(folder, device="cpu"))
    ]
    assert not target.exists() and not asked, said
    assert not said[0].startswith("wrong")


@pytest.fixture
def adapter(sound, tmp_path) -> Path:
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(tiny_hf_model(), LoraConfig(r=2, task_type="SEQ_CLS", target_modules=["q_proj"], modules_to_save=["score"]))
    model.peft_config["default"].base_model_name_or_path = str(sound)
    model.save_pretrained(str(tmp_path / "adapter"))
    return tmp_path / "adapter"


def adapter_says(**change: Any) -> Damage:
    def damage(folder: Path) -> None:
        path = folder / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | change))

    return damage


def adapter_weights(change: Callable[[dict[str, Tensor]], Any]) -> Damage:
    def damage(folder: Path) -> None:
        found = load_file(folder / "adapter_model.safetensors")
        change(found)
        save_file(found, folder / "adapter_model.safetensors")

    return damage


def without_head(found: dict[str, Tensor]) -> None:
    for key in [key for key in found if "score" in key]:
        del found[key]


def turned(found: dict[str, Tensor]) -> None:
    found.update({key: value.T.contiguous() for key, value in found.items() if "lora_A" in key})


ADAPTERS: dict[str, tuple[Damage, str]] = {
    "sound": (adapter_says(), "right"),
    "a pattern that fits": (adapter_says(target_modules=r"model\.layers\.\d\.self_attn\.q_proj"), "right"),
    "a pattern that takes for ever": (adapter_says(target_modules="(.*)*x"), "takes longer than"),
    "a scale whose pattern takes for ever": (adapter_says(alpha_pattern={"((a|.)*)*x": 3}), "takes longer than"),
    "no regular expression": (adapter_says(target_modules="q_proj("), "no regular expression"),
    "prompt tuning": (adapter_says(peft_type="PROMPT_TUNING", num_virtual_tokens=4), "PROMPT_TUNING adapter adds tokens"),
    "unknown kind": (adapter_says(peft_type="NONSENSE"), "adapter_config.json is not readable"),
    "no head in the file": (adapter_weights(without_head), "no reward head"),
    "another task": (adapter_says(task_type="CAUSAL_LM"), "right"),  # its file holds a head
    "a task that is none": (adapter_says(task_type="NONSENSE"), "adapter_config.json is not readable"),
    "tokens by nonsense": (adapter_says(trainable_token_indices={"embed_tokens": ["x"]}), "does not fit base"),
    "modules by nonsense": (adapter_says(modules_to_save=["nowhere", ""]), "right|does not fit base"),
    "modules that are numbers": (adapter_says(modules_to_save=[1, 2]), "does not fit base|not readable"),
    "modules as text": (adapter_says(modules_to_save="score"), "right|does not fit base|not readable"),
    "rank of 10^9": (adapter_says(r=10**9), "says rank 1000000000"),
    "rank as text": (adapter_says(r="two"), "adapter_config.json is not readable|does not fit base"),
    "python to import": (adapter_says(megatron_config={"a": 1}, megatron_core="planted"), "names Python to import"),
    "more layers": (adapter_says(layer_replication=[[0, 2], [0, 2]]), "changes the number of layers"),
    "base that is not there": (adapter_says(base_model_name_or_path="../nowhere"), r"its base was not found.*say so with base=…"),
    "no base": (adapter_says(base_model_name_or_path=None), "its base was not found"),
    "base that is a file": (adapter_says(base_model_name_or_path="/etc/hostname"), "its base was not found|no such folder"),
    "cut": (bytes_of("adapter_model.safetensors", lambda data: data[:-10]), "damaged"),
    "swapped shape": (
        adapter_weights(lambda f: f.update({k: v.T.contiguous() for k, v in f.items() if "lora_A" in k})),
        "does not fit base",
    ),
    "pickle": (lambda f: (f / "adapter_model.safetensors").rename(f / "adapter_model.bin"), "a pickle"),
    "config of nonsense": (written("adapter_config.json", "[1"), "adapter_config.json is not readable"),
}


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_damaged_adapter_is_refused_in_a_line_or_right(name, adapter, reward, monkeypatch):
    if "for ever" in name:
        monkeypatch.setattr(adapters, "_SECONDS", 2)
    damage, expected = ADAPTERS[name]
    damage(adapter)
    said = outcome(lambda: load(adapter, device="cpu", local_files_only=True), reward)
    assert fits(said, expected), said


def test_models_in_memory_that_are_no_reward_models_are_refused():
    from peft import LoraConfig

    unmerged = tiny_hf_model()
    unmerged.add_adapter(LoraConfig(r=2, target_modules=["q_proj"]))
    with pytest.raises(InputError, match=r"merge_and_unload\(\) first"):
        HookedRewardModel.from_hf(unmerged)
    nan = tiny_hf_model()
    nan.model.norm.weight.data[0] = torch.nan
    with pytest.raises(InputError, match="not finite"):
        HookedRewardModel.from_hf(nan)
