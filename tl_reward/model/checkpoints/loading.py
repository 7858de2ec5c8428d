"""Loads checkpoints: config, weights and tokenizer, each checked before the next is read."""

import warnings
from collections.abc import Set
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from tl_reward.data.text import NoTemplate
from tl_reward.devices import check_fits
from tl_reward.errors import InputError
from tl_reward.model import architectures, conversion, embedded
from tl_reward.model.checkpoints.adapters import ADAPTER_WEIGHTS, adapter_config, merge_adapter, scale_of
from tl_reward.model.checkpoints.folders import HubOptions, check_options, hf_config, local_folder, made_from, name_of, refused, tokenizer
from tl_reward.model.checkpoints.quiet import quietly
from tl_reward.model.checkpoints.stored import check_stored, weight_files
from tl_reward.model.origin import MadeFrom


class Checkpoint(NamedTuple):
    """`name` is what the caller called it: errors and reports should too. `source`: the files that its weights are made from."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    source: MadeFrom


@quietly()
def load_reward_model(
    name_or_path: str | Path, *, base: str | Path | None = None, dtype: torch.dtype, device: str = "cpu", hub: HubOptions
) -> Checkpoint:
    """A `*ForSequenceClassification` checkpoint of one output, or an adapter merged into its base. Weights are read straight to `device`.

    Raises:
        InputError: as `HookedRewardModel.from_pretrained`.
    """
    name = name_of(name_or_path)
    check_options(hub, name, ("name_or_path", "base", "device", "dtype", "readout"))
    folder = local_folder(name, hub)
    adapter = adapter_config(folder, name)
    if adapter is None:
        if base is not None:
            raise InputError(f"{name}: base is for adapters alone, and this is a whole model")
        config = hf_config(folder, name)
        check_reward_head(config, name)
        source = made_from(name, folder, weight_files(folder, name))
        hf_model = _hf_model(folder, config, dtype, name, device=device)
        return _told(Checkpoint(hf_model, tokenizer(folder, name), name, source), folder)
    base_name = str(base or adapter.base_model_name_or_path)
    try:
        # The revision is the adapter's; its base has revisions of its own.
        base_folder = local_folder(base_name, cast(HubOptions, {key: value for key, value in hub.items() if key != "revision"}))
    except InputError as error:
        here = "" if base else " Where it is elsewhere, say so with base= (on the command line --adapter-base)."
        raise InputError(f"{name} is an adapter, and its base was not found: {error}.{here}") from None
    hf_model = merge_adapter(_with_one_output(base_folder, dtype, base_name, device), adapter, folder, name, base_name)
    weights = [folder / ADAPTER_WEIGHTS, *weight_files(base_folder, base_name)]
    source = made_from(name, folder, weights, also=scale_of(adapter))
    if (folder / "tokenizer_config.json").exists():
        own = tokenizer(folder, name)
        hf_model.config.pad_token_id = own.pad_token_id  # the one that the adapter was trained with
        return _told(Checkpoint(hf_model, own, name, source), folder)
    of_base = tokenizer(base_folder, base_name)
    if folder.parent == embedded.ADAPTERS:
        of_base.chat_template = None  # embedded adapters ship without a tokenizer, and read HH-RLHF turns
    return _told(Checkpoint(hf_model, of_base, name, source), folder)


def _told(checkpoint: Checkpoint, folder: Path) -> Checkpoint:
    """Warns, once for a model, where its tokenizer has no chat template and it was not trained here: HH-RLHF turns are then a guess."""
    ours = folder.parent == embedded.ADAPTERS or (folder / "training.json").is_file()
    if checkpoint.tokenizer.chat_template is None and not ours and checkpoint.name not in _WARNED:
        _WARNED.add(checkpoint.name)
        warnings.warn(
            f"{checkpoint.name}: its tokenizer has no chat template, so transcripts are written as HH-RLHF turns; if it was trained on "
            "others, say on which: tl_reward.set_template(model.tokenizer, …), on the command line --template",
            NoTemplate,
            stacklevel=2,
        )
    return checkpoint


_WARNED: set[str] = set()


@quietly()
def load_with_fresh_head(name_or_path: str | Path, *, seed: int, dtype: torch.dtype, device: str = "cpu", hub: HubOptions) -> Checkpoint:
    """A causal language model with a new head of one output, drawn from normal(0, 0.02). A head that is there is replaced."""
    name = name_of(name_or_path)
    check_options(hub, name, ("name_or_path", "seed", "device", "dtype"))
    folder = local_folder(name, hub)
    hf_model = _with_one_output(folder, dtype, name, device)
    source = replace(made_from(name, folder, weight_files(folder, name), also=f"a fresh head, seed {seed}"), path=None, revision=None)
    head = torch.empty(hf_model.score.weight.shape).normal_(0, 0.02, generator=torch.Generator().manual_seed(seed))
    hf_model.score.weight.data = head.to(hf_model.score.weight)
    return Checkpoint(hf_model, tokenizer(folder, name), name, source)


@quietly()
def load_unembedding(
    name_or_path: str | Path, *, dtype: torch.dtype = torch.float32, hub: HubOptions | None = None
) -> Float[Tensor, "d_model vocab"]:
    """The output embedding of a causal language model with its final norm's weight folded in, and a layer norm's centring: logits are the
    residual stream over the norm's scale, times this. (Left out: the norm's bias, and Gemma-2's cap of logits, which keeps their order.)

    Raises:
        InputError: no model there, an unsupported architecture, weights in other files than safetensors, or missing ones.
    """
    name = name_of(name_or_path)
    folder = local_folder(name, hub or {})
    config = hf_config(folder, name)
    hf_model = _hf_model(folder, config, dtype, name, {"score.weight"}, kind=AutoModelForCausalLM)  # a head that is there is not read
    # In the place of the reward head, so that the table of the architecture knows all of it.
    inside = {key: value for key, value in hf_model.state_dict().items() if key.startswith(f"{hf_model.base_model_prefix}.")}
    head = hf_model.get_output_embeddings().weight.detach()
    state = conversion.to_lens(inside | {"score.weight": head}, config, dtype, keep=False)
    folded = state["ln_final.w"].float()[:, None] * state["unembed.W_U"].float()
    return (folded - folded.mean(0) if "ln_final.b" in state else folded).to(dtype)


@quietly()
def check_reward_model(name_or_path: str | Path, *, base: str | Path | None = None) -> dict[str, Any]:
    """Says no before another model is run for an hour: raises InputError where `load_reward_model` would, but for what only the weights
    tell. It reads configs alone, and gives the fields of the model's TransformerLens config."""
    name = name_of(name_or_path)
    folder = local_folder(name, {})
    adapter = adapter_config(folder, name)
    if adapter is None:
        config = hf_config(folder, name)
        check_reward_head(config, name)
    else:
        base_name = str(base or adapter.base_model_name_or_path)
        config = hf_config(local_folder(base_name, {}), base_name)
    return architectures.lens_config(config)


def is_adapter(name_or_path: str | Path) -> bool:
    """Whether a checkpoint is a PEFT adapter. Raises InputError where there is none, or an adapter that cannot be merged."""
    name = name_of(name_or_path)
    return adapter_config(local_folder(name, {}), name) is not None


def check_reward_head(config: Any, name: str, class_name: str | None = None) -> None:
    """Raises InputError for an unsupported architecture, or another head than a sequence classifier's."""
    architectures.architecture_of(config, name)
    kind = class_name or (config.architectures or ["a checkpoint that names no architecture"])[0]
    if not kind.endswith("ForSequenceClassification"):
        raise InputError(f"{name}: found {kind}; a reward model is a *ForSequenceClassification (from_base adds a fresh head)")


def output_names(config: Any) -> tuple[str, ...]:
    """What a head's outputs are called: as the config does, where it names them, each with a name of its own."""
    count = int(config.num_labels)
    if count == 1:
        return ("reward",)
    names = [str((config.id2label or {}).get(i, "")) for i in range(count)]
    good = len(set(names)) == count and all(name.strip() == name and name.isprintable() and name for name in names)
    named = good and names != [f"LABEL_{i}" for i in range(count)]
    return tuple(names) if named else tuple(f"output {i}" for i in range(count))


@quietly()
def outputs_of(name_or_path: str | Path) -> tuple[str, ...]:
    """The names of a reward model's outputs, from its config alone: what `outputs` of the loaded model will be. A language model, or an
    adapter, gets one. Raises InputError where there is no model."""
    name = name_of(name_or_path)
    folder = local_folder(name, {})
    if adapter_config(folder, name) is not None:
        return ("reward",)
    config = hf_config(folder, name)
    kinds = config.architectures or []
    return output_names(config) if any(kind.endswith("ForSequenceClassification") for kind in kinds) else ("reward",)


def _with_one_output(folder: Path, dtype: torch.dtype, name: str, device: str) -> Any:
    config = hf_config(folder, name)
    config.num_labels = 1
    return _hf_model(folder, config, dtype, name, {"score.weight"}, device=device)


def _hf_model(
    folder: Path,
    config: Any,
    dtype: torch.dtype,
    name: str,
    may_lack: Set[str] = frozenset(),
    kind: Any = AutoModelForSequenceClassification,
    device: str = "cpu",
) -> Any:
    check_fits(name, check_stored(folder, config, name, kind, may_lack), dtype, device)
    with refused(f"{name}: weights could not be loaded"):
        model, info = kind.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            device_map={"": device},  # each weight is read to where it stays
            use_safetensors=True,
            output_loading_info=True,
            trust_remote_code=False,
        )
    # Hugging Face fills what a file lacks with random numbers.
    missing = sorted((set(info["missing_keys"]) | {key[0] for key in info["mismatched_keys"]}) - may_lack)
    if missing:
        raise InputError(f"{name}: the file lacks {len(missing)} weights of this architecture ({', '.join(missing[:3])})")
    return model
