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

from tl_reward.arguments import check_argument
from tl_reward.data.text import NoTemplate, check_template, set_template
from tl_reward.devices import check_fits
from tl_reward.errors import InputError
from tl_reward.model import architectures, conversion, embedded
from tl_reward.model.checkpoints.adapters import ADAPTER_WEIGHTS, Adapter, merge_adapter, read_adapter, scale_of
from tl_reward.model.checkpoints.folders import HubOptions, check_options, hf_config, local_folder, made_from, name_of, refused, tokenizer
from tl_reward.model.checkpoints.quiet import quietly
from tl_reward.model.checkpoints.stored import Stored, check_stored, read_weight, stored_weights, weight_files
from tl_reward.model.heads.layouts import SCORE, VOCABULARY, Layout, recognise
from tl_reward.model.heads.outputs import Output, weights_of
from tl_reward.model.heads.reading import Head, names_of, plain_head, read_columns, read_head
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
    _check_no_head(head, name)
    base_name, base_folder = _base_of(adapter, name, base, hub)
    config, own_head = _base_config(adapter, base_folder, name, base_name), {"score.weight"} if adapter.has_head else frozenset()
    hf_model = merge_adapter(_hf_model(base_folder, config, dtype, base_name, own_head, device=device), adapter, folder, name, base_name)
    weights = [folder / ADAPTER_WEIGHTS, *weight_files(base_folder, base_name)]
    source = made_from(name, folder, weights, also=scale_of(adapter.config))
    if (folder / "tokenizer_config.json").exists():
        own = tokenizer(folder, name)
        hf_model.config.pad_token_id = own.pad_token_id  # the one that the adapter was trained with
        return _told(Checkpoint(hf_model, own, name, source), folder, template)
    of_base = tokenizer(base_folder, base_name)
    if folder.parent == embedded.ADAPTERS:
        of_base.chat_template = None  # embedded adapters ship without a tokenizer, and read HH-RLHF turns
    return _told(Checkpoint(hf_model, of_base, name, source), folder, template)


def _whole(folder: Path, dtype: torch.dtype, name: str, device: str, asked: str | None, output: Output) -> Checkpoint:
    """A checkpoint that is no adapter."""
    config = hf_config(folder, name)
    stored = stored_weights(folder, config, name)
    layout = layout_of(stored, config, name, asked)
    if output is not None:
        names = (
            names_of(layout, config, {key: header.shape for key, header in stored.head.items()}) if layout and stored.head else ("reward",)
        )
        weights_of(output, names)
    files = weight_files(folder, name)
    source = made_from(name, folder, files, also="" if asked is None else f"head {asked}")
    if layout is None or (layout is SCORE and not getattr(config, "normalize_reward", False)):
        if layout is not None:
            _count_outputs(config, stored.head["score.weight"].shape[0], name)
        own_class = not (config.architectures or [""])[0].endswith("ForSequenceClassification")  # Hugging Face's has no place for a bias
        bias = {"score.bias"} & stored.head.keys() if own_class else frozenset()
        hf_model = _hf_model(folder, config, dtype, name, device=device, stored=stored, head=bias)
        own = tokenizer(folder, name)
        score = hf_model.score.weight.data
        with refused(f"{name}: the head's weights could not be read"):
            read = plain_head(score, read_weight(files, "score.bias", device) if bias else None, config)
        return Checkpoint(hf_model, own, name, source, read)
    own = tokenizer(folder, name)

    def read_head_weight(key: str) -> Tensor:
        return read_weight(files, key, device)

    with refused(f"{name}: the head's weights could not be read"):
        if layout is VOCABULARY:
            head = read_columns(str(asked), lambda rows: read_weight(files, stored.embedding, device, rows), config, own, name)
        else:
            head = read_head(layout, list(stored.head), read_head_weight, config, own, name)
    config.num_labels = stored.head["score.weight"].shape[0] if "score.weight" in stored.head else 1
    hf_model = _hf_model(folder, config, dtype, name, {"score.weight"}, device=device, stored=stored, head=stored.head.keys())
    hf_model.score.weight.data = head.weight.to(dtype)
    return Checkpoint(hf_model, own, name, source, head)


def _count_outputs(config: Any, count: int, name: str) -> None:
    """The weights decide how many outputs there are, unless the config says so too: two without a name is what silence means."""
    said = list((config.id2label or {}).values())
    if len(said) == count:
        return
    if said != ["LABEL_0", "LABEL_1"]:
        raise InputError(f"{name}: found {len(said)} outputs in config.json ({', '.join(map(str, said[:4]))}), and {count} in score.weight")
    config.num_labels = count


def layout_of(stored: Stored, config: Any, name: str, asked: str | None = None) -> Layout | None:
    """The layout of a checkpoint's head; None where it is that of the class which its config names, and its files lack it."""
    if asked is not None:
        check_argument("head", asked, str)
        if stored.head:
            raise InputError(
                f"{name}: head is for language models, and this one has a reward head ({sorted(stored.head)[0]}): leave it out"
            )
        return VOCABULARY
    return recognise({key: header.shape for key, header in stored.head.items()}, config, name)


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


@quietly()
def check_reward_model(name_or_path: str | Path, *, base: str | Path | None = None, head: str | None = None) -> dict[str, Any]:
    """Says no before another model is run for an hour: raises InputError where `load_reward_model` would, but for what only the weights
    tell. It reads configs alone, and gives the fields of the model's TransformerLens config."""
    name = name_of(name_or_path)
    folder = local_folder(name, {})
    adapter = read_adapter(folder, name)
    if adapter is None:
        config = hf_config(folder, name)
        layout_of(stored_weights(folder, config, name), config, name, head)
    else:
        _check_no_head(head, name)
        base_name, base_folder = _base_of(adapter, name, base, {})
        config = _base_config(adapter, base_folder, name, base_name)
        config.vocab_size = adapter.vocabulary or config.vocab_size
    return architectures.lens_config(config)


@quietly()
def outputs_of(name_or_path: str | Path) -> tuple[str, ...]:
    """The names of a reward model's outputs, from its config and the headers of its files: what `outputs` of the loaded model will be. A
    language model, or an adapter, gets one. Raises InputError where there is no model."""
    name = name_of(name_or_path)
    folder = local_folder(name, {})
    if read_adapter(folder, name) is not None:
        return ("reward",)
    config = hf_config(folder, name)
    stored = stored_weights(folder, config, name)
    layout = layout_of(stored, config, name) if stored.head else None
    return ("reward",) if layout is None else names_of(layout, config, {key: header.shape for key, header in stored.head.items()})


def is_adapter(name_or_path: str | Path) -> bool:
    """Whether a checkpoint is a PEFT adapter. Raises InputError where there is none, or an adapter that cannot be merged."""
    name = name_of(name_or_path)
    return read_adapter(local_folder(name, {}), name) is not None


def check_reward_head(config: Any, class_name: str) -> None:
    """Raises InputError for a model in memory of an unsupported architecture, or of a class without a head that gives rewards."""
    architectures.architecture_of(config, class_name)
    if not class_name.endswith(("ForSequenceClassification", "ForTokenClassification")):
        raise InputError(f"found {class_name}; a reward model is a *ForSequenceClassification (from_base adds a fresh head)")


def _check_no_head(head: str | None, name: str) -> None:
    if head is not None:
        raise InputError(f"{name}: head is for language models, and this is an adapter, which brings its head")


def _base_of(adapter: Adapter, name: str, base: str | Path | None, hub: HubOptions) -> tuple[str, Path]:
    """What an adapter's base is called, and where it is. Raises InputError where it is not there, with what to say then."""
    base_name = str(base or adapter.config.base_model_name_or_path)
    try:
        # The revision is the adapter's; its base has revisions of its own.
        return base_name, local_folder(base_name, cast(HubOptions, {key: value for key, value in hub.items() if key != "revision"}))
    except InputError as error:
        here = "" if base else "; where it is elsewhere, say so with base=…"
        raise InputError(f"{name} is an adapter, and its base was not found: {error}{here}") from None


def _base_config(adapter: Adapter, folder: Path, name: str, base_name: str) -> Any:
    """The config of an adapter's base. Raises InputError where neither has a reward head."""
    config = hf_config(folder, base_name)
    if adapter.has_head:
        config.num_labels = 1
        return config
    try:
        stored = stored_weights(folder, config, base_name)
        layout = layout_of(stored, config, base_name)
    except InputError as error:
        helps = 'train it with modules_to_save=["score"], or give the reward model that it was trained on with base=…'
        raise InputError(f"{name}: {adapter.lack_of_head}, and its base has none ({error}); {helps}") from None
    if layout not in (None, SCORE) or getattr(config, "normalize_reward", False):
        raise InputError(
            f"{name}: its base {base_name} has a head of its own kind, which no adapter is merged onto: merge it with PEFT, and save that"
        )
    if layout is SCORE:
        _count_outputs(config, stored.head["score.weight"].shape[0], base_name)
    return config


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
            **({"key_mapping": dict(stored.renames)} if stored.renames else {}),
        )
    # Hugging Face fills what a file lacks with random numbers.
    missing = sorted((set(info["missing_keys"]) | {key[0] for key in info["mismatched_keys"]}) - may_lack)
    if missing:
        raise InputError(f"{name}: the file lacks {len(missing)} weights of this architecture ({', '.join(missing[:3])})")
    return model
