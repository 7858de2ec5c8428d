"""What a model is given: options of a call, texts, tokens; and at which of them its reward is read."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from tl_reward.arguments import check_argument
from tl_reward.data.encoding import EndAt
from tl_reward.errors import InputError, check_keywords, shown
from tl_reward.model.components import HookedTransformerConfig

# Arguments of `HookedTransformer.forward`. Those of the second line have no meaning for a reward, and only their defaults are taken.
_TAKEN = ("input", "return_type", "attention_mask", "padding_side", "start_at_layer", "stop_at_layer", "past_kv_cache")
_EMPTY = ("loss_per_token", "tokens", "shortformer_pos_embed")
Readout = Literal["mask", "hf"]


class ReadoutSetting:
    """The attribute `readout` of a model: "mask" until it is set, and nothing but what is allowed."""

    def __get__(self, model: Any, owner: Any = None) -> Readout:
        return getattr(model, "_readout", "mask")

    def __set__(self, model: Any, value: Readout) -> None:
        check_argument("readout", value, Readout)
        model._readout = value


class Tokenised(NamedTuple):
    """`mask`: true at real tokens."""

    tokens: Int[Tensor, "batch pos"]
    mask: Bool[Tensor, "batch pos"]


def inner_options(given: Mapping[str, Any], cfg: HookedTransformerConfig, *, is_text: bool) -> dict[str, Any]:
    """The options of a call that are left for `HookedTransformer.forward`, once those about text are taken out.

    Raises:
        InputError: an option that would be ignored; UnknownOption: one that no call takes.
    """
    check_keywords(given, (*_TAKEN, *_EMPTY, "prepend_bos"), "the model")
    for name in _EMPTY if given.get("start_at_layer") is None else _EMPTY[:1]:  # a residual stream may come with its tokens
        if given.get(name) is not None and given[name] is not False:
            raise InputError(f"{name} has no meaning for a reward model, which predicts no next token")
    first = given.get("prepend_bos")
    if isinstance(first, bool) and first != (is_text and cfg.default_prepend_bos):  # no token is put before tokens
        raise InputError("prepend_bos is not taken: whether a text begins with that token is up to its tokenizer; pass tokens instead")
    side = given.get("padding_side")
    if side is not None and side not in (("left", "right") if is_text else ("right",)):
        raise InputError(f"padding_side is left or right, and for texts; tokens come with an attention_mask; got {side!r}")
    return {name: value for name, value in given.items() if name not in (*_EMPTY, "prepend_bos", "padding_side")}


def tokenise(
    texts: Any, tokenizer: PreTrainedTokenizerBase | None, cfg: HookedTransformerConfig, side: str | None, end: EndAt | None = None
) -> Tokenised:
    """Texts, or a single one, as `tokenizer(text)` has them, padded on the given side, or on the tokenizer's. Where the reward is read at a
    token that every transcript ends with, it is put there."""
    if isinstance(texts, (bytes, Mapping)) or not isinstance(texts, Iterable):
        raise InputError(f"the model must be given a text, a list of texts, or a tensor of tokens, got {shown(texts)}")
    texts = [texts] if isinstance(texts, str) else list(texts)
    if tokenizer is None:
        raise InputError("this model has no tokenizer; pass tokens instead of text")
    if not texts or not all(isinstance(text, str) and text for text in texts):
        raise InputError("text must not be empty, nor anything but text")
    if cfg.tokenizer_prepends_bos:  # a chat template may have written that token already
        texts = [text.removeprefix(str(tokenizer.bos_token)) for text in texts]
    if end is not None and end.appended:
        last = str(tokenizer.convert_ids_to_tokens(end.token))
        texts = [text if text.endswith(last) else text + last for text in texts]
    encoded = tokenizer(list(texts), padding=True, padding_side=side, return_tensors="pt")
    tokens, mask = encoded["input_ids"], encoded["attention_mask"].bool()
    tokens = torch.where(mask, tokens, tokens.clamp(max=cfg.d_vocab - 1))  # nobody reads padding, but it is embedded
    return Tokenised(tokens.to(cfg.device), mask)


def check_tokens(tokens: Int[Tensor, "batch pos"] | Float[Tensor, "batch pos *d_model"], cfg: HookedTransformerConfig) -> None:
    """Raises InputError for no tokens, numbers that are none, more than the model's context, and ids outside of its vocabulary."""
    if tokens.is_floating_point():
        raise InputError(f"tokens are whole numbers, got {tokens.dtype}; a residual stream comes with start_at_layer")
    if not tokens.numel():
        raise InputError(f"at least one row of one token is needed, got shape {tuple(tokens.shape)}")
    if tokens.shape[1] > cfg.n_ctx:
        raise InputError(f"the model's context is {cfg.n_ctx} tokens, got {tokens.shape[1]}; cut the text, or leave it out")
    check_vocabulary(tokens, cfg)


def check_vocabulary(tokens: Int[Tensor, "batch pos"], cfg: HookedTransformerConfig) -> None:
    """Raises InputError for ids that the model has no embedding of."""
    low, high = torch.stack(tokens.aminmax()).tolist()  # one question to the device
    if low < 0 or high >= cfg.d_vocab:
        helps = "" if low < 0 else "; a tokenizer may have more tokens than its model has embeddings: see docs/converting.md"
        raise InputError(f"token ids must be in [0, {cfg.d_vocab}), the model's vocabulary, got {low if low < 0 else high}{helps}")


def refuse_hidden_padding(tokens: Int[Tensor, "batch pos"], tokenizer: PreTrainedTokenizerBase | None) -> None:
    """Rows that end (or begin) with different numbers of pad tokens are a padded batch: its reward would be read from padding."""
    pad = tokenizer.pad_token_id if tokenizer is not None else None
    if not isinstance(pad, int):
        return
    is_pad = tokens.eq(pad)
    for edge in (is_pad, is_pad.flip(1)):
        run = edge.long().cumprod(1).sum(1)
        if run.min() != run.max():
            raise InputError("tokens look padded (rows with different numbers of pad tokens at an edge): pass attention_mask")


def check_tokenizer(tokenizer: Any, cfg: HookedTransformerConfig) -> None:
    """Raises InputError for what is no tokenizer, one without offsets, and one with more tokens than the model has embeddings of."""
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise InputError(f"a tokenizer of transformers is needed, got {type(tokenizer).__name__}; AutoTokenizer.from_pretrained loads one")
    if not tokenizer.is_fast:
        kind = type(tokenizer).__name__
        raise InputError(
            f"{kind} is a slow tokenizer, which does not say where its tokens are in a text; give the fast one (tokenizer.json)"
        )
    # Special tokens that were added past the embedding are refused where a text holds one: some tokenizers have them, and never use them.
    if tokenizer.vocab_size > cfg.d_vocab:
        raise InputError(
            f"the tokenizer has {tokenizer.vocab_size} tokens, and {cfg.model_name} embeddings of {cfg.d_vocab}: it is another model's"
        )


def read_tokens(
    given: Any, unread: int | None, end: EndAt | None, rewards: Float[Tensor, "batch pos"], mask: Int[Tensor, "batch pos"] | None
) -> Bool[Tensor, "batch pos"] | None:
    """Which tokens the reward may be read at, of a batch of tokens, or of those that a residual stream comes with; None where at all.

    Raises:
        InputError: a residual stream comes without the tokens that tell; a row without the token that the reward is read at.
    """
    if unread is None and end is None:
        return None
    if not isinstance(given, Tensor) or given.is_floating_point() or given.shape != rewards.shape:
        help = f"give tokens= beside it, {list(rewards.shape)}"
        if end is not None:
            raise InputError(f"this model reads rewards at the token {end.token}, which a residual stream does not show: {help}")
        raise InputError(
            f'readout "hf" passes over pad tokens, which a residual stream does not show: {help}, or set model.readout = "mask"'
        )
    tokens = given.to(rewards.device)
    if end is None:
        return tokens != unread
    read = tokens == end.token
    there = read if mask is None else read & mask[:, -read.shape[1] :].bool()
    if not there.any(1).all():
        row = int((~there.any(1)).nonzero()[0])
        raise InputError(
            f"row {row} has no token {end.token}, at which this model reads rewards; texts and pairs get it where it is to be added"
        )
    return read


def pads_only_on_the_right(mask: Int[Tensor, "batch pos"] | None, kwargs: Mapping[str, Any], tokenizer: Any) -> bool:
    """Causal attention never looks right, so padding there needs no mask; the layers are then spared one."""
    if mask is None or kwargs.get("past_kv_cache") is not None:
        return False
    reads_left = tokenizer is not None and tokenizer.padding_side == "left"
    return not reads_left and bool((mask[:, 1:] <= mask[:, :-1]).all())


def readout(
    rewards: Float[Tensor, "batch pos"],
    attention_mask: Bool[Tensor, "batch pos"] | Int[Tensor, "batch pos"] | None,
    read: Bool[Tensor, "batch pos"] | None = None,
) -> Int[Tensor, " batch"]:
    """The position at which the reward is read: the last real token, by the mask (a pad token may also be a real one).

    Args:
        read: where false, a token is passed over, as Hugging Face passes over pad tokens. A row of such tokens alone is read at its first.
    """
    if attention_mask is None:
        mask = torch.ones(rewards.shape, dtype=torch.long, device=rewards.device)
    elif not attention_mask.any(1).all():
        raise InputError("a row has no real token")
    else:
        mask = attention_mask[:, -rewards.shape[1] :].long()
    if read is not None:
        kept = mask * read.to(mask.device)
        mask = torch.where(kept.any(1, keepdim=True), kept, mask * (mask.cumsum(1) == 1))
    return mask.shape[1] - 1 - mask.flip(1).argmax(1)
