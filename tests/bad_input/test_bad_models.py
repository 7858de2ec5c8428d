"""Checkpoints that cannot be read: what users bring, and what is said. What hostile ones do is in tests/attack."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.refusals import check, command_refuses, refusal
from safetensors.torch import load_file, save_file
from torch import Tensor

from tl_reward.data.readers import pairs_from
from tl_reward.model.reward_model import load
from tl_reward.model.tiny import byte_tokenizer, tiny_hf_model
from tl_reward.running.scoring import score

pytestmark = pytest.mark.filterwarnings("ignore")
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n"


@pytest.fixture(scope="module")
def sound(base: str) -> Path:
    return Path(base)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory, sound: Path) -> Path:
    from peft import LoraConfig, get_peft_model

    folder = tmp_path_factory.mktemp("models") / "adapter"
    model = get_peft_model(tiny_hf_model(), LoraConfig(r=2, task_type="SEQ_CLS", target_modules=["q_proj"], modules_to_save=["score"]))
    model.peft_config["default"].base_model_name_or_path = str(sound)
    model.save_pretrained(str(folder))
    return folder


Damage = Callable[[Path], object]
WEIGHTS, INDEX, UP = "model.safetensors", "model.safetensors.index.json", "model.layers.1.mlp.up_proj.weight"


def config(name: str = "config.json", **change: Any) -> Damage:
    """Of which some fields are others; None leaves a field out."""

    def damage(folder: Path) -> None:
        found = json.loads((folder / name).read_text()) | change
        (folder / name).write_text(json.dumps({key: value for key, value in found.items() if value is not None}))

    return damage


def weights(change: Callable[[dict[str, Tensor]], object], name: str = WEIGHTS) -> Damage:
    def damage(folder: Path) -> None:
        found = load_file(folder / name)
        change(found)
        save_file(found, folder / name, metadata={"format": "pt"})

    return damage


def headless(also: Damage) -> Damage:
    """Without the weights of a head, by which it would be told whatever the config says."""

    def damage(folder: Path) -> None:
        weights(lambda found: found.pop("score.weight"))(folder)
        also(folder)

    return damage


def written(name: str, content: bytes) -> Damage:
    return lambda folder: (folder / name).write_bytes(content)


def without(*names: str) -> Damage:
    return lambda folder: [path.unlink() for name in names for path in folder.glob(name)]


def instead(name: str) -> Damage:
    """Another file of weights in the place of safetensors."""
    return lambda folder: (folder / WEIGHTS).rename(folder / name)


def in_parts(folder: Path) -> None:
    """Of which the second is not there."""
    keys = [*load_file(folder / WEIGHTS)]
    (folder / WEIGHTS).rename(folder / "model-00001-of-00002.safetensors")
    named = {key: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, key in enumerate(keys)}
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": named}))


def in_a_folder(folder: Path) -> None:
    files = [*folder.iterdir()]
    (folder / "checkpoint-500").mkdir()
    for path in files:
        path.rename(folder / "checkpoint-500" / path.name)


def as_gguf(folder: Path) -> None:
    without("*")(folder)
    (folder / "model-q4.gguf").write_bytes(b"GGUF")


def without_tokenizer_of_its_class(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    config("tokenizer_config.json", tokenizer_class="LlamaTokenizer")(folder)


def turned(found: dict[str, Tensor]) -> None:
    found.update({key: value.T.contiguous() for key, value in found.items() if "lora_A" in key})


def cut(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-100])


# What is done to a sound model, and what helps. Where it says nothing, the words are those of heads.
MODELS: dict[str, tuple[Damage, str]] = {
    "no config.json": (without("config.json"), "no config.json there; save_pretrained() writes one"),
    "no model_type": (config(model_type=None), "Should have a `model_type` key"),
    "config that is no JSON": (written("config.json", b'{"model_type": "llama",}'), "config.json is not that of a model (Expecting"),
    "config that is a list": (written("config.json", b"[1]"), "it holds list, and no object"),
    "architectures as text": (config(architectures="LlamaForSequenceClassification"), 'must be a list, such as ["Llama'),
    "no architectures": (headless(config(architectures=[])), "no reward head in its files"),
    "language model": (headless(config(architectures=["LlamaForCausalLM"])), "head="),
    "class misspelt": (headless(config(architectures=["LlamaForSequenceClasification"])), "no reward head in its files"),
    "two labels": (config(id2label={"0": "a", "1": "b"}, label2id={"a": 0, "b": 1}), ""),
    "head of two rows": (weights(lambda found: found.update({"score.weight": torch.ones(2, 32)})), ""),
    "no head": (weights(lambda found: found.pop("score.weight")), ""),
    "other family": (config(model_type="bert"), "architecture 'bert' is not supported; supported: llama, "),
    "encoder and decoder": (config(model_type="t5"), "architecture 't5' is not supported; supported: llama, "),
    "images": (config(model_type="llava"), "architecture 'llava' is not supported; supported: llama, "),
    "experts": (config(model_type="mixtral"), "has experts, which is not supported"),
    "code of the checkpoint": (config(model_type="mine", auto_map={"AutoConfig": "mine.C"}), "never runs here; see docs/converting.md"),
    "gptq": (config(quantization_config={"quant_method": "gptq", "bits": 4}), "quantised (gptq)"),
    "awq": (config(quantization_config={"quant_method": "awq", "bits": 4}), "load the original checkpoint, or one that"),
    "bitsandbytes": (config(quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}), "(see docs/converting.md)"),
    "weights in 8 bits": (weights(lambda found: found.update({UP: found[UP].to(torch.float8_e4m3fn)})), "convert them to bfloat16"),
    "vocabulary of another size": (config(vocab_size=300), "257×32 in the file, and config.json asks for 300×32"),
    "pickle": (instead("pytorch_model.bin"), "save_pretrained() writes safetensors (see docs/converting.md)"),
    "pickle of another name": (instead("model.pth"), "model.pth is a pickle, which can run code"),
    "GGUF alone": (as_gguf, "model-q4.gguf is GGUF, which is not read: load the checkpoint that it was made from"),
    "GGUF beside a config": (instead("model-q4.gguf"), "load the checkpoint that it was made from (see docs/converting.md)"),
    "weights of TensorFlow": (instead("tf_model.h5"), "load it with transformers, and save_pretrained() (see docs"),
    "no weights": (without(WEIGHTS), f"no {WEIGHTS} there, nor {INDEX}; save_pretrained() writes them"),
    "part of several": (instead("model-00001-of-00002.safetensors"), f"{INDEX}, which names them all, is not there: download it too"),
    "part that is not there": (in_parts, "names model-00002-of-00002.safetensors, which is not there: the download is not complete"),
    "weights that are cut": (cut, f"{WEIGHTS} is damaged, or no safetensors file: download it again"),
    "pointer of Git LFS": (written(WEIGHTS, POINTER), "git lfs pull fetches it"),
    "checkpoint in a folder": (in_a_folder, "checkpoint-500 in it has one: give that folder"),
    "no embedding": (weights(lambda found: found.pop("model.embed_tokens.weight")), "lacks 1 weights of this architecture (model.emb"),
    "no tokenizer": (without("tokenizer*"), "no tokenizer.json there; tokenizer.save_pretrained() writes one, see docs/converting.md"),
    "slow tokenizer": (without_tokenizer_of_its_class, "it has special tokens alone: no tokenizer.json there"),
    "tokenizer that is no JSON": (written("tokenizer.json", b"{"), "no tokenizer found (Expecting property name"),
}
ADAPTERS: dict[str, tuple[Damage, str]] = {
    "base that is not there": (config("adapter_config.json", base_model_name_or_path="/nowhere/base"), "say so with base="),
    "weights of other shapes": (weights(turned, "adapter_model.safetensors"), "size mismatch for"),
    "no weights": (without("adapter_model*"), "no adapter_model.safetensors there"),
    "no config": (without("adapter_config.json"), "adapter_model.safetensors is an adapter's, and needs its adapter_config.json"),
    "config that is no JSON": (written("adapter_config.json", b"{"), "adapter_config.json is not readable"),
    "kind that adds tokens": (config("adapter_config.json", peft_type="PROMPT_TUNING", num_virtual_tokens=4), "use LoRA"),
}
# What the command line says before it reads any weights.
EARLY = (
    *("no config.json", "no model_type", "config that is no JSON", "architectures as text", "language model", "two labels", "images"),
    *("code of the checkpoint", "gptq", "GGUF alone", "checkpoint in a folder"),
)


@pytest.mark.parametrize("name", MODELS)
def test_model(name: str, sound: Path, tmp_path: Path):
    damage, says = MODELS[name]
    folder = Path(shutil.copytree(sound, tmp_path / "model"))
    damage(folder)
    check(refusal(load, folder, device="cpu"), folder, ": ", says)


@pytest.mark.parametrize("name", ADAPTERS)
def test_adapter(name: str, adapter: Path, tmp_path: Path):
    damage, says = ADAPTERS[name]
    folder = Path(shutil.copytree(adapter, tmp_path / "model"))
    damage(folder)
    check(refusal(load, folder, device="cpu"), folder, "", says)


@pytest.mark.parametrize("name", EARLY)
def test_model_on_the_command_line(name: str, sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = Path(shutil.copytree(sound, tmp_path / "model"))
    MODELS[name][0](folder)
    said = command_refuses(capsys, "score", folder, "--limit", "1", "--out", tmp_path / "out")
    assert said.startswith(f"{folder}: ") and not (tmp_path / "out").exists()


def test_numbers_that_are_not_finite_are_of_a_model(sound: Path, tmp_path: Path):
    folder = Path(shutil.copytree(sound, tmp_path / "model"))
    weights(lambda found: found.update({UP: found[UP] * float("nan")}))(folder)
    check(refusal(load, folder, device="cpu"), folder, ": ", f"{UP} holds numbers that are not finite")


def test_tokenizer_with_more_tokens_than_the_model_has(sound: Path, tmp_path: Path):
    folder = Path(shutil.copytree(sound, tmp_path / "model"))
    more = byte_tokenizer()
    more.add_tokens(["<extra>"])
    more.save_pretrained(folder)
    model, row = load(folder, device="cpu"), {"prompt": "Hi", "chosen": "Hello.", "rejected": "No."}
    assert score(model, pairs_from([row])).chosen.shape == (1,)  # no text has it
    message = refusal(score, model, pairs_from([row | {"chosen": "<extra>"}]))
    assert message.endswith("got 257; a tokenizer may have more tokens than its model has embeddings: see docs/converting.md")


def test_name_that_is_nearly_an_embedded_one():
    assert refusal(load, "helpfull", device="cpu", local_files_only=True).endswith("; did you mean helpful?")
