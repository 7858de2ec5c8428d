"""Hugging Face checkpoints of reward models: whole ones, adapters merged into their base, and bases with a fresh head.

Weights are read from safetensors only, and no remote code runs unless the caller asks for it.
"""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from tl_reward import architectures, zoo
from tl_reward.errors import InputError


class Checkpoint(NamedTuple):
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


def load_reward_model(name_or_path: str | Path, *, base: str | Path | None, dtype: torch.dtype, hf_kwargs: dict[str, Any]) -> Checkpoint:
    """A `*ForSequenceClassification` checkpoint of one output, or an adapter merged into its base.

    Raises:
        InputError: as `HookedRewardModel.from_pretrained`.
    """
    folder = zoo.resolve(name_or_path)
    adapter = _adapter_config(folder, hf_kwargs)
    if adapter is None:
        hf_config = _hf_config(folder, hf_kwargs)
        check_reward_head(hf_config, str(name_or_path))
        return Checkpoint(_hf_model(folder, hf_config, dtype, hf_kwargs), _tokenizer(folder, hf_kwargs))
    if adapter.task_type != "SEQ_CLS":
        raise InputError(f"{name_or_path}: adapter has no reward head (task type {adapter.task_type}, expected SEQ_CLS)")
    base_name = str(base or adapter.base_model_name_or_path)
    base_folder = zoo.resolve(base_name)
    hf_model = _with_one_output(base_folder, dtype, hf_kwargs)
    hf_model = _merge_adapter(hf_model, folder, f"{name_or_path}: adapter does not fit base {base_name}")
    if Path(folder, "tokenizer_config.json").exists():
        return Checkpoint(hf_model, _tokenizer(folder, hf_kwargs))
    tokenizer = _tokenizer(base_folder, hf_kwargs)
    if str(name_or_path) in zoo.REWARD_MODELS:
        tokenizer.chat_template = None  # embedded adapters ship without a tokenizer, and read HH-RLHF turns
    return Checkpoint(hf_model, tokenizer)


def load_with_fresh_head(name_or_path: str | Path, *, seed: int, dtype: torch.dtype, hf_kwargs: dict[str, Any]) -> Checkpoint:
    """A causal language model with a new head of one output, drawn from normal(0, 0.02)."""
    folder = zoo.resolve(name_or_path)
    hf_model = _with_one_output(folder, dtype, hf_kwargs)
    head = torch.empty(hf_model.score.weight.shape).normal_(0, 0.02, generator=torch.Generator().manual_seed(seed))
    hf_model.score.weight.data = head.to(hf_model.score.weight)
    return Checkpoint(hf_model, _tokenizer(folder, hf_kwargs))


def _with_one_output(folder: str, dtype: torch.dtype, hf_kwargs: dict[str, Any]) -> Any:
    hf_config = _hf_config(folder, hf_kwargs)
    hf_config.num_labels = 1
    architectures.architecture_of(hf_config)
    return _hf_model(folder, hf_config, dtype, hf_kwargs)


def check_reward_head(hf_config: Any, name: str, class_name: str | None = None) -> None:
    architectures.architecture_of(hf_config)
    kind = class_name or (hf_config.architectures or ["a checkpoint that names no architecture"])[0]
    if not kind.endswith("ForSequenceClassification"):
        raise InputError(f"{name}: found {kind}; a reward model is a *ForSequenceClassification (from_base adds a fresh head)")
    if hf_config.num_labels != 1:
        raise InputError(f"{name}: found {hf_config.num_labels} outputs; a reward model has 1")


def _reason(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _hf_config(folder: str, hf_kwargs: dict[str, Any]) -> Any:
    try:
        return AutoConfig.from_pretrained(folder, **hf_kwargs)
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: no model found ({_reason(error)})") from None


def _hf_model(folder: str, hf_config: Any, dtype: torch.dtype, hf_kwargs: dict[str, Any]) -> Any:
    try:
        return AutoModelForSequenceClassification.from_pretrained(folder, config=hf_config, dtype=dtype, use_safetensors=True, **hf_kwargs)
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"{folder}: weights could not be loaded ({_reason(error)})") from None


def _tokenizer(folder: str, hf_kwargs: dict[str, Any]) -> Any:
    try:
        return AutoTokenizer.from_pretrained(folder, **hf_kwargs)
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: no tokenizer found ({_reason(error)})") from None


def _adapter_config(folder: str, hf_kwargs: dict[str, Any]) -> Any:
    """The adapter's config, or None where the checkpoint is no adapter."""
    from peft import PeftConfig

    if Path(folder).exists() and not Path(folder, "adapter_config.json").exists():
        return None
    try:
        return PeftConfig.from_pretrained(folder, **hf_kwargs)
    except (OSError, ValueError):
        return None


def _merge_adapter(hf_model: Any, folder: str, complaint: str) -> Any:
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors import safe_open

    try:
        peft_model = PeftModel.from_pretrained(hf_model, folder)
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"{complaint} ({_reason(error)})") from None
    if Path(folder).is_dir():
        # PEFT only warns of layers that one side has and the other lacks.
        with safe_open(Path(folder, "adapter_model.safetensors"), "pt") as file:
            stored = set(file.keys())
        wanted = set(get_peft_model_state_dict(peft_model, save_embedding_layers=False))
        if stored != wanted:
            raise InputError(f"{complaint} ({len(stored - wanted)} weights have no place, {len(wanted - stored)} are missing)")
    return peft_model.merge_and_unload()
