"""Hugging Face checkpoints of reward models: whole ones, adapters merged into their base, and bases with a fresh head.

A hub id is first made a local folder, so that both are read the same way. Weights come from safetensors only; no remote code runs.
"""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from huggingface_hub import snapshot_download
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from tl_reward.errors import InputError, first_line
from tl_reward.model import architectures, embedded
from tl_reward.model.quiet import quietly


class Checkpoint(NamedTuple):
    """`name` is what the caller called it: errors and reports should too."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str


@quietly()
def load_reward_model(name_or_path: str | Path, *, base: str | Path | None = None, dtype: torch.dtype, hub: dict[str, Any]) -> Checkpoint:
    """A `*ForSequenceClassification` checkpoint of one output, or an adapter merged into its base.

    Args:
        hub: `revision`, `token`, `cache_dir`, `local_files_only` of `huggingface_hub.snapshot_download`.

    Raises:
        InputError: as `HookedRewardModel.from_pretrained`.
    """
    name = str(name_or_path)
    folder = _local_folder(name, hub)
    adapter = _adapter_config(folder, name)
    if adapter is None:
        hf_config = _hf_config(folder, name)
        check_reward_head(hf_config, name)
        return Checkpoint(_hf_model(folder, hf_config, dtype, name), _tokenizer(folder, name), name)
    if adapter.task_type != "SEQ_CLS":
        raise InputError(f"{name}: adapter has no reward head (task type {adapter.task_type}, expected SEQ_CLS)")
    base_name = str(base or adapter.base_model_name_or_path)
    # The revision is the adapter's; its base has revisions of its own.
    base_folder = _local_folder(base_name, {key: value for key, value in hub.items() if key != "revision"})
    hf_model = _merge_adapter(_with_one_output(base_folder, dtype, base_name), folder, f"{name}: adapter does not fit base {base_name}")
    if (folder / "tokenizer_config.json").exists():
        tokenizer = _tokenizer(folder, name)
        hf_model.config.pad_token_id = tokenizer.pad_token_id  # the one that the adapter was trained with
        return Checkpoint(hf_model, tokenizer, name)
    tokenizer = _tokenizer(base_folder, base_name)
    if folder.parent == embedded.ADAPTERS:
        tokenizer.chat_template = None  # embedded adapters ship without a tokenizer, and read HH-RLHF turns
    return Checkpoint(hf_model, tokenizer, name)


@quietly()
def load_with_fresh_head(name_or_path: str | Path, *, seed: int, dtype: torch.dtype, hub: dict[str, Any]) -> Checkpoint:
    """A causal language model with a new head of one output, drawn from normal(0, 0.02). A head that is there is replaced."""
    name = str(name_or_path)
    folder = _local_folder(name, hub)
    hf_model = _with_one_output(folder, dtype, name)
    head = torch.empty(hf_model.score.weight.shape).normal_(0, 0.02, generator=torch.Generator().manual_seed(seed))
    hf_model.score.weight.data = head.to(hf_model.score.weight)
    return Checkpoint(hf_model, _tokenizer(folder, name), name)


@quietly()
def load_unembedding(
    name_or_path: str | Path, *, dtype: torch.dtype = torch.float32, hub: dict[str, Any] | None = None
) -> Float[Tensor, "d_model vocab"]:
    """The output embedding of a causal language model with its final norm's weight folded in, and a layer norm's centring: logits are the
    residual stream over the norm's scale, times this. (Left out: the norm's bias, and Gemma-2's cap of logits, which keeps their order.)

    Raises:
        InputError: no model there, an unsupported architecture, weights in other files than safetensors, or missing ones.
    """
    name = str(name_or_path)
    folder = _local_folder(name, hub or {})
    hf_config = _hf_config(folder, name)
    architectures.architecture_of(hf_config)
    hf_model = _hf_model(folder, hf_config, dtype, name, kind=AutoModelForCausalLM)
    # In the place of the reward head, so that the table of the architecture knows all of it.
    inside = {key: value for key, value in hf_model.state_dict().items() if key.startswith(f"{hf_model.base_model_prefix}.")}
    head = hf_model.get_output_embeddings().weight.detach()
    state = architectures.to_lens(inside | {"score.weight": head}, hf_config, dtype, copy=False)
    folded = state["ln_final.w"].float()[:, None] * state["unembed.W_U"].float()
    return (folded - folded.mean(0) if "ln_final.b" in state else folded).to(dtype)


@quietly()
def check_reward_model(name_or_path: str | Path) -> None:
    """Says no before another model is run for an hour: raises InputError where `load_reward_model` would, but for what only the weights
    tell. It reads configs alone."""
    name = str(name_or_path)
    folder = _local_folder(name, {})
    adapter = _adapter_config(folder, name)
    if adapter is None:
        check_reward_head(_hf_config(folder, name), name)
    elif adapter.task_type != "SEQ_CLS":
        raise InputError(f"{name}: adapter has no reward head (task type {adapter.task_type}, expected SEQ_CLS)")
    else:
        base = str(adapter.base_model_name_or_path)
        architectures.architecture_of(_hf_config(_local_folder(base, {}), base))


def check_reward_head(hf_config: Any, name: str, class_name: str | None = None) -> None:
    """Raises InputError for an unsupported architecture, another head than a sequence classifier's, or more than one output."""
    architectures.architecture_of(hf_config)
    kind = class_name or (hf_config.architectures or ["a checkpoint that names no architecture"])[0]
    if not kind.endswith("ForSequenceClassification"):
        raise InputError(f"{name}: found {kind}; a reward model is a *ForSequenceClassification (from_base adds a fresh head)")
    if hf_config.num_labels != 1:
        raise InputError(f"{name}: found {hf_config.num_labels} outputs; a reward model has 1")


def _with_one_output(folder: Path, dtype: torch.dtype, name: str) -> Any:
    hf_config = _hf_config(folder, name)
    hf_config.num_labels = 1
    architectures.architecture_of(hf_config)
    return _hf_model(folder, hf_config, dtype, name, may_lack={"score.weight"})


def _local_folder(name: str, hub: dict[str, Any]) -> Path:
    folder = Path(embedded.resolve(name))
    if folder.exists():
        return folder
    patterns = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
    try:
        return Path(snapshot_download(name, allow_patterns=patterns, **hub))
    except Exception as error:  # huggingface_hub raises many kinds for "not there" and "no network"
        names = ", ".join(embedded.REWARD_MODELS)
        raise InputError(f"{name}: no such folder, not embedded ({names}), and the hub did not give it ({first_line(error)})") from None


def _hf_config(folder: Path, name: str) -> Any:
    try:
        return AutoConfig.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise InputError(f"{name}: no model found ({first_line(error)})") from None


def _hf_model(
    folder: Path,
    hf_config: Any,
    dtype: torch.dtype,
    name: str,
    may_lack: frozenset[str] | set[str] = frozenset(),
    kind: Any = AutoModelForSequenceClassification,
) -> Any:
    try:
        model, info = kind.from_pretrained(folder, config=hf_config, dtype=dtype, use_safetensors=True, output_loading_info=True)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise InputError(f"{name}: weights could not be loaded ({first_line(error)})") from None
    # Hugging Face fills what a file lacks with random numbers.
    missing = sorted((set(info["missing_keys"]) | {key[0] for key in info["mismatched_keys"]}) - may_lack)
    if missing:
        raise InputError(f"{name}: the file lacks {len(missing)} weights of this architecture ({', '.join(missing[:3])})")
    return model


def _tokenizer(folder: Path, name: str) -> Any:
    try:
        return AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise InputError(f"{name}: no tokenizer found ({first_line(error)})") from None


def _adapter_config(folder: Path, name: str) -> Any:
    """The adapter's config, or None where the checkpoint is no adapter."""
    from peft import PeftConfig

    if not (folder / "adapter_config.json").exists():
        return None
    try:
        return PeftConfig.from_pretrained(str(folder))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{name}: adapter_config.json is not readable ({first_line(error)})") from None


def _merge_adapter(hf_model: Any, folder: Path, complaint: str) -> Any:
    from peft import PeftModel, get_peft_model_state_dict

    try:
        # PEFT would also read a pickle, and only warns of layers that one side has and the other lacks.
        with safe_open(folder / "adapter_model.safetensors", "pt") as file:
            stored = set(file.keys())
        peft_model = PeftModel.from_pretrained(hf_model, str(folder))
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise InputError(f"{complaint} ({first_line(error)})") from None
    wanted = set(get_peft_model_state_dict(peft_model, save_embedding_layers=False))
    if stored != wanted:
        raise InputError(f"{complaint} ({len(stored - wanted)} weights have no place, {len(wanted - stored)} are missing)")
    return peft_model.merge_and_unload()
