"""Loads checkpoints: config, weights and tokenizer, each checked before the next is read."""

import warnings
from collections.abc import Set
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from tl_reward.data.text import NoTemplate, check_template, set_template
from tl_reward.devices import check_fits
from tl_reward.errors import InputError
from tl_reward.model import conversion, embedded
from tl_reward.model.checkpoints.adapters import ADAPTER_WEIGHTS, merge_adapter, read_adapter, scale_of
from tl_reward.model.checkpoints.folders import HubOptions, check_options, hf_config, local_folder, made_from, name_of, refused, tokenizer
from tl_reward.model.checkpoints.looking import (
    base_config,
    base_of,
    check_no_head,
    looked_at,
    output_names,
    read_apart,
    take_the_columns_of,
)
from tl_reward.model.checkpoints.quiet import quietly
from tl_reward.model.checkpoints.stored import Stored, check_stored, read_weight, stored_weights, weight_files
from tl_reward.model.heads.layouts import VOCABULARY
from tl_reward.model.heads.outputs import Output, weights_of
from tl_reward.model.heads.reading import Head, plain_head, read_columns, read_head
from tl_reward.model.origin import MadeFrom


class Checkpoint(NamedTuple):
    """`name` is what the caller called it: errors and reports should too. `source`: the files that its weights are made from."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    source: MadeFrom
    head: Head | None = None


@quietly()
def load_reward_model(
    name_or_path: str | Path,
    *,
    base: str | Path | None = None,
    template: str | Path | None = None,
    dtype: torch.dtype,
    device: str = "cpu",
    head: str | None = None,
    output: Output = None,
    hub: HubOptions,
) -> Checkpoint:
    """A checkpoint with a reward head, or an adapter merged into its base. Weights are read straight to `device`.

    Args:
        head, output: as `HookedRewardModel.from_pretrained`. `output` is only checked here, before weights are read. In the result,
            `head` is None where it is that of the model, `score`.

    Raises:
        InputError: as `HookedRewardModel.from_pretrained`.
    """
    name = name_of(name_or_path)
    check_options(hub, name, ("name_or_path", "base", "device", "dtype", "readout", "template", "head", "output"))
    check_template(template)
    folder = local_folder(name, hub)
    adapter = read_adapter(folder, name)
    if adapter is None:
        if base is not None:
            raise InputError(f"{name}: base is for adapters alone, and this is a whole model")
        return _told(_whole(folder, dtype, name, device, head, output), folder, template)
    check_no_head(head, name)
    base_name, base_folder = base_of(adapter, name, base, hub)
    config, stored = base_config(adapter, base_folder, name, base_name)
    own_head = {"score.weight"} if adapter.has_head else frozenset()
    of_base = _hf_model(base_folder, config, dtype, base_name, own_head, device=device, stored=stored)
    hf_model = merge_adapter(of_base, adapter, folder, name, base_name)
    weights = [folder / ADAPTER_WEIGHTS, *weight_files(base_folder, base_name)]
    source = made_from(name, folder, weights, also=scale_of(adapter.config))
    if (folder / "tokenizer_config.json").exists():
        own = tokenizer(folder, name)
        hf_model.config.pad_token_id = own.pad_token_id  # the one that the adapter was trained with
        return _told(Checkpoint(hf_model, own, name, source), folder, template)
    bases = tokenizer(base_folder, base_name)
    if folder.parent == embedded.ADAPTERS:
        bases.chat_template = None  # embedded adapters ship without a tokenizer, and read HH-RLHF turns
    return _told(Checkpoint(hf_model, bases, name, source), folder, template)


def _whole(folder: Path, dtype: torch.dtype, name: str, device: str, asked: str | None, output: Output) -> Checkpoint:
    """A checkpoint that is no adapter."""
    config, stored, layout = looked_at(folder, name, asked)
    if output is not None:
        weights_of(output, output_names(layout, config, stored))
    files = weight_files(folder, name)
    source = made_from(name, folder, files, also="" if asked is None else f"head {asked}")
    may_lack, apart = read_apart(layout, config, stored)
    if layout is None or not may_lack:
        hf_model = _hf_model(folder, config, dtype, name, device=device, stored=stored, head=apart)
        own = tokenizer(folder, name)
        score = hf_model.score.weight.data
        with refused(f"{name}: the head's weights could not be read"):
            read = plain_head(score, read_weight(files, "score.bias", device) if apart else None, config)
        return Checkpoint(hf_model, own, name, source, read)
    own = tokenizer(folder, name)

    def read_head_weight(key: str) -> Tensor:
        return read_weight(files, key, device)

    with refused(f"{name}: the head's weights could not be read"):
        if layout is VOCABULARY:
            head = read_columns(str(asked), lambda rows: read_weight(files, str(stored.embedding), device, rows), config, own, name)
        else:
            head = read_head(layout, list(stored.head), read_head_weight, config, own, name)
    take_the_columns_of(stored, config)
    hf_model = _hf_model(folder, config, dtype, name, may_lack, device=device, stored=stored, head=apart)
    hf_model.score.weight.data = head.weight.to(dtype)
    return Checkpoint(hf_model, own, name, source, head)


def _told(checkpoint: Checkpoint, folder: Path, template: str | Path | None) -> Checkpoint:
    """Gives the tokenizer the template that was asked for. Without one warns, once for a model, where the tokenizer has none and the model
    was not trained here: HH-RLHF turns are then a guess."""
    if template is not None:
        set_template(checkpoint.tokenizer, template)
        return checkpoint
    ours = folder.parent == embedded.ADAPTERS or (folder / "training.json").is_file()
    if checkpoint.tokenizer.chat_template is None and not ours and checkpoint.name not in _WARNED:
        _WARNED.add(checkpoint.name)
        warnings.warn(
            f"{checkpoint.name}: its tokenizer has no chat template, so transcripts are written as HH-RLHF turns; if it was trained on "
            'others, say on which with template=… ("hh", "plain", or a file with a Jinja template)',
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
    stored: Stored | None = None,
    head: Set[str] = frozenset(),
) -> Any:
    """`head`: names of weights in the files that are read apart."""
    stored = stored or stored_weights(folder, config, name)
    check_fits(name, check_stored(stored, config, name, kind, may_lack, head), dtype, device)
    with refused(f"{name}: weights could not be loaded"):
        model, info = kind.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            device_map={"": device},  # each weight is read to where it stays
            use_safetensors=True,
            output_loading_info=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=bool(may_lack),  # all others have been compared
            **({"key_mapping": dict(stored.renames)} if stored.renames else {}),
        )
    # Hugging Face fills what a file lacks with random numbers.
    missing = sorted((set(info["missing_keys"]) | {key[0] for key in info["mismatched_keys"]}) - may_lack)
    if missing:
        raise InputError(f"{name}: the file lacks {len(missing)} weights of this architecture ({', '.join(missing[:3])})")
    return model
