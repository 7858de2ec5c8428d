"""PEFT adapters: what may be merged into a base, and the merging."""

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tl_reward.errors import InputError
from tl_reward.model.checkpoints.folders import refused
from tl_reward.model.checkpoints.stored import headers

_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_SECONDS = 20  # for the patterns of one adapter: they take milliseconds
_MATCH = "import json, re, sys; patterns, names = json.load(sys.stdin); [re.match(p, n) for p in patterns for n in names]"


def adapter_config(folder: Path, name: str) -> Any:
    """The adapter's config, or None where the checkpoint is no adapter.

    Raises:
        InputError: it is not readable, trains no reward head, or is of a kind that cannot be merged.
    """
    from peft import PeftConfig

    if not (folder / _CONFIG).exists():
        return None
    with refused(f"{name}: {_CONFIG} is not readable"):
        config = PeftConfig.from_pretrained(str(folder))
    kind = getattr(config.peft_type, "value", config.peft_type)
    if config.is_prompt_learning:
        raise InputError(f"{name}: a {kind} adapter adds tokens of its own, and cannot be merged into the weights of a base; use LoRA")
    task = getattr(config.task_type, "value", config.task_type)
    if task != "SEQ_CLS":
        raise InputError(f"{name}: adapter has no reward head (task type {task}, expected SEQ_CLS)")
    for field, why in {
        "megatron_config": "names Python to import",
        "alora_invocation_tokens": "acts on some tokens only, and cannot be merged",
        "layer_replication": "changes the number of layers",
    }.items():
        if getattr(config, field, None):
            raise InputError(f"{name}: {field} in {_CONFIG} {why}; it is not supported")
    return config


def scale_of(config: Any) -> str:
    """What scales an adapter's weights, and is not in their file."""
    names = ("peft_type", "lora_alpha", "alpha_pattern", "rank_pattern", "use_rslora", "fan_in_fan_out")
    return json.dumps({name: getattr(config, name, None) for name in names}, sort_keys=True, default=str)


def merge_adapter(hf_model: Any, config: Any, folder: Path, name: str, base: str) -> Any:
    """The base with the adapter's changes in its weights.

    Raises:
        InputError: the adapter's file is not readable, lacks a head, or does not fit the base.
    """
    from peft import PeftModel, get_peft_model_state_dict

    complaint = f"{name}: adapter does not fit base {base}"
    if not (folder / ADAPTER_WEIGHTS).exists():
        # PEFT would also read a pickle.
        raise InputError(f"{complaint} (no {ADAPTER_WEIGHTS} there; a pickle, adapter_model.bin, can run code: convert it with PEFT first)")
    stored = headers([folder / ADAPTER_WEIGHTS], name)
    if not any(".score." in key for key in stored):
        raise InputError(f"{name}: adapter has no reward head ({ADAPTER_WEIGHTS} holds no score.weight)")
    longest = max(size for header in stored.values() for size in header.shape)
    with refused(f"{name}: {_CONFIG} is not readable"):
        ranks = [getattr(config, "r", None) or 0, *(getattr(config, "rank_pattern", None) or {}).values()]
        if max(ranks) > longest:
            raise InputError(f"{name}: {_CONFIG} says rank {max(ranks)}, and no weight in {ADAPTER_WEIGHTS} is that long")
        _check_patterns(config, [key for key, _ in hf_model.named_modules()], name)
    with refused(complaint):
        # PEFT only warns of layers that one side has and the other lacks.
        peft_model = PeftModel.from_pretrained(hf_model, str(folder), config=config, torch_device=str(hf_model.device))
        wanted = set(get_peft_model_state_dict(peft_model, save_embedding_layers=False))
        if stored.keys() != wanted:
            without, lacking = len(stored.keys() - wanted), len(wanted - stored.keys())
            raise InputError(f"{complaint} ({without} weights have no place, {lacking} are missing)")
        return peft_model.merge_and_unload()


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
