"""PEFT adapters: what may be merged into a base, and the merging. What an adapter trains is told from the names in its file."""

import json
import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from tl_reward.errors import InputError
from tl_reward.model.checkpoints.folders import refused
from tl_reward.model.checkpoints.stored import Header, headers

_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_SECONDS = 20  # for the patterns of one adapter: they take milliseconds
_MATCH = "import json, re, sys; patterns, names = json.load(sys.stdin); [re.match(p, n) for p in patterns for n in names]"
_HEAD = "base_model.model.score"
# What others call a head that is a weight alone; it is merged as `score`.
_OTHER_HEADS = ("v_head", "value_head", "regression_head")
_EMBEDDING = re.compile(r"\.(embed_tokens|wte|embed_in)\.([\w.]+\.)?weight$")
_WITH_HEAD = ("SEQ_CLS", "TOKEN_CLS")  # task types for which PEFT saves the head without being asked


@dataclass(frozen=True)
class Adapter:
    """What an adapter's folder says of itself: PEFT's config, and the type and shape of each weight by PEFT's present name for it."""

    config: Any
    stored: dict[str, Header]

    @property
    def has_head(self) -> bool:
        """Whether its file holds a head. Without one, a base that is a reward model keeps its own."""
        return f"{_HEAD}.weight" in self.stored

    @property
    def vocabulary(self) -> int | None:
        """The number of tokens whose embeddings it holds; None where it leaves them to the base."""
        return next((header.shape[0] for key, header in self.stored.items() if _EMBEDDING.search(key) and header.shape), None)

    @property
    def lack_of_head(self) -> str:
        """What it holds in the place of a head, as a message says it."""
        on_head = any(key.startswith(f"{_HEAD}.") for key in self.stored)
        found = "changes to a score layer, and not the score.weight that they are added to" if on_head else "no score.weight"
        return f"adapter has no reward head ({ADAPTER_WEIGHTS} holds {found}; task type {_value(self.config.task_type)})"


def read_adapter(folder: Path, name: str) -> Adapter | None:
    """What a folder says of its adapter, or None where the checkpoint is no adapter.

    Raises:
        InputError: it is not readable, of a kind that cannot be merged, or lacks the head that its config says it has trained.
    """
    from peft import PeftConfig

    if not (folder / _CONFIG).exists():
        return None
    with refused(f"{name}: {_CONFIG} is not readable"):
        config = PeftConfig.from_pretrained(str(folder))
    if config.is_prompt_learning:
        kind = _value(config.peft_type)
        raise InputError(f"{name}: a {kind} adapter adds tokens of its own, and cannot be merged into the weights of a base; use LoRA")
    for field, why in {
        "megatron_config": "names Python to import",
        "alora_invocation_tokens": "acts on some tokens only, and cannot be merged",
        "layer_replication": "changes the number of layers",
    }.items():
        if getattr(config, field, None):
            raise InputError(f"{name}: {field} in {_CONFIG} {why}; it is not supported")
    if not (folder / ADAPTER_WEIGHTS).exists():
        # PEFT would also read a pickle.
        raise InputError(f"{name}: no {ADAPTER_WEIGHTS} there; a pickle, adapter_model.bin, can run code: convert it with PEFT first")
    found = headers([folder / ADAPTER_WEIGHTS], name)
    adapter = Adapter(config, {now: found[key] for key, now in _present_names(found).items()})
    _check_head(adapter, name)
    return adapter


def _check_head(adapter: Adapter, name: str) -> None:
    """Raises InputError for a head that the file should hold and does not, or that is more than one row of numbers."""
    others = sorted(key.removeprefix("base_model.model.") for key in adapter.stored if key.startswith(f"{_HEAD}.") and ".lora_" not in key)
    if adapter.has_head:
        shape = adapter.stored[f"{_HEAD}.weight"].shape
        if len(others) > 1 or len(shape) != 2:
            raise InputError(f"{name}: the adapter's head has {', '.join(others)}; a head that is one weight of two dimensions is read")
        if shape[0] != 1:
            raise InputError(f"{name}: found {shape[0]} outputs in the adapter's head; a reward model has 1")
        return
    task, saved = _value(adapter.config.task_type), getattr(adapter.config, "modules_to_save", None) or ()
    if task in _WITH_HEAD or {"score", *_OTHER_HEADS} & set(saved):
        raise InputError(f"{name}: {adapter.lack_of_head}, and its config says that one was trained: the file is not whole")


def _value(kind: Any) -> Any:
    return getattr(kind, "value", kind)


def _present_names(keys: Iterable[str]) -> dict[str, str]:
    """PEFT's present name of each weight that counts, by its name in the file: some versions left the adapter's name ("default") in it, and
    the wrapper's, and stored beside a trained module the one that it was trained from."""
    names: dict[str, str] = {}
    for key in keys:
        now = re.sub(r"\.default(?=\.|$)", "", key).replace(".modules_to_save.", ".")
        now = now.replace(".lora_magnitude_vector.weight", ".lora_magnitude_vector")
        names[key] = re.sub(rf"^base_model\.model\.({'|'.join(_OTHER_HEADS)})(?=\.)", _HEAD, now)
    trained = set(names.values())
    return {
        key: now for key, now in names.items() if ".original_module." not in now or now.replace(".original_module.", ".") not in trained
    }


def _weights(file: Path, device: str, name: str) -> dict[str, Tensor]:
    """The adapter's weights by their present names. Raises InputError where two of one name differ."""
    with refused(f"{name}: {file.name} is damaged, or no safetensors file"):
        found = load_file(file, device=device)
    weights: dict[str, Tensor] = {}
    for key, now in _present_names(found).items():
        if now in weights and not torch.equal(weights[now], found[key]):
            raise InputError(f"{name}: {file.name} holds {now.removeprefix('base_model.model.')} twice, and the two differ")
        weights[now] = found[key]
    return weights


def scale_of(config: Any) -> str:
    """What of an adapter's computation is in its config, and not in the file of its weights."""
    names = ("peft_type", "lora_alpha", "alpha_pattern", "rank_pattern", "use_rslora", "fan_in_fan_out")
    said = {name: getattr(config, name, None) for name in names}
    # Those that few have are named where they are there, so that the others are called what they always were.
    rare = {name: getattr(config, name, None) for name in ("alpha", "trainable_token_indices", "init_lora_weights")}
    said |= {name: value for name, value in rare.items() if value not in (None, "gaussian") and not isinstance(value, bool)}
    return json.dumps(said, sort_keys=True, default=str)


def merge_adapter(hf_model: Any, adapter: Adapter, folder: Path, name: str, base: str) -> Any:
    """The base with the adapter's changes in its weights, and with as many tokens as the adapter has embeddings for.

    Raises:
        InputError: the adapter's file is not readable, or does not fit the base.
    """
    from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict

    complaint = f"{name}: adapter does not fit base {base}"
    config, stored = adapter.config, adapter.stored
    longest = max(size for header in stored.values() for size in header.shape)
    with refused(f"{name}: {_CONFIG} is not readable"):
        ranks = [getattr(config, "r", None) or 0, *(getattr(config, "rank_pattern", None) or {}).values()]
        if max(ranks) > longest:
            raise InputError(f"{name}: {_CONFIG} says rank {max(ranks)}, and no weight in {ADAPTER_WEIGHTS} is that long")
        _check_patterns(config, [key for key, _ in hf_model.named_modules()], name)
    weights = _weights(folder / ADAPTER_WEIGHTS, str(hf_model.device), name)
    with refused(complaint):
        if adapter.vocabulary not in (None, hf_model.config.vocab_size):
            hf_model.resize_token_embeddings(adapter.vocabulary, mean_resizing=False)  # the file's numbers come in their place
        config.inference_mode = True
        if hasattr(config, "modules_to_save"):
            config.modules_to_save = _saved_modules(adapter, [key for key, _ in hf_model.named_modules()])
        # Not PEFT's class for the task type: that says nothing which the file does not, and most of them take no sequence classifier.
        peft_model = PeftModel(hf_model, config)
        without = set_peft_model_state_dict(peft_model, weights).unexpected_keys
        # PEFT says nothing of layers that one side has and the other lacks.
        lacking = set(get_peft_model_state_dict(peft_model, save_embedding_layers=False)) - stored.keys()
        if without or lacking:
            raise InputError(f"{complaint} ({len(without)} weights have no place, {len(lacking)} are missing)")
        return peft_model.merge_and_unload()


def _saved_modules(adapter: Adapter, modules: Iterable[str]) -> list[str] | None:
    """The modules that the adapter holds whole, of those that the model has: a language model's own head is none of them."""
    asked = {"score" if each in _OTHER_HEADS else each for each in adapter.config.modules_to_save or ()}
    asked |= {"score"} if adapter.has_head else set()
    return sorted(each for each in asked if any(module.endswith(each) for module in modules)) or None


def _check_patterns(config: Any, names: Iterable[str], name: str) -> None:
    """Matches the adapter's regular expressions in another process, which can be ended: some would take for ever."""
    whole = [getattr(config, field, None) for field in ("target_modules", "exclude_modules")]
    lists = [getattr(config, field, None) or () for field in ("modules_to_save", "layers_pattern", "rank_pattern", "alpha_pattern")]
    parts = [part for each in lists for part in ([each] if isinstance(each, str) else each)]
    patterns = [each for each in whole if isinstance(each, str)] + [rf"(.*\.)?({part})$" for part in parts]
    if all(part.replace("_", "").replace(".", "").isalnum() for part in [*parts, *(each for each in whole if isinstance(each, str))]):
        return  # plain names
    try:
        said = json.dumps([patterns, list(names)])
        subprocess.run([sys.executable, "-c", _MATCH], input=said, text=True, timeout=_SECONDS, check=True, capture_output=True)
    except subprocess.TimeoutExpired:
        raise InputError(f"{name}: a pattern in {_CONFIG} takes longer than {_SECONDS} s to match: {patterns[0][:100]}") from None
    except subprocess.CalledProcessError:
        raise InputError(f"{name}: a pattern in {_CONFIG} is no regular expression: {', '.join(patterns)[:100]}") from None
