"""Reward models as `HookedTransformer`s: load, convert, run, save.

The reward head is a one-column unembedding: `cfg.d_vocab_out == 1`, and `W_U[:, 0]` is the reward direction. The final norm's weights
are folded into it, so that the residual stream, divided by the final norm's scale and projected on `W_U[:, 0]`, sums to the reward.
"""

import warnings
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from tl_reward import parallel
from tl_reward.data.packing import PackedBatch
from tl_reward.errors import InputError
from tl_reward.model import architectures, checkpoints
from tl_reward.model.components import HookedTransformer, HookedTransformerConfig, HookPoint, TypedModuleList, get_device
from tl_reward.model.devices import check_device
from tl_reward.model.layers.attention import with_class
from tl_reward.model.layers.block import Block, RewardHead

ReturnType = Literal["reward", "reward_tokens", "logits"] | None


class HookedRewardModel(HookedTransformer):
    """A reward model with every hook point of `HookedTransformer`, and three of its own.

    `hook_reward_tokens` [batch, pos]: the reward read at each token. `hook_reward` [batch]: the reward at the read-out, the last real
    token; with a `PackedBatch` [copies, row]. `blocks.{l}.mlp.act_fn.hook_act` [batch, pos, d_mlp]: the activation function's output.

    Build one with `from_pretrained`, `from_hf` or `from_base`.
    """

    hf_config: Any
    blocks: TypedModuleList[Block]  # pyright: ignore[reportIncompatibleVariableOverride] - all of them are made ours by `__init__`

    def __init__(self, cfg: HookedTransformerConfig, tokenizer: PreTrainedTokenizerBase | None = None) -> None:
        with warnings.catch_warnings():
            # 4.0 removes HookedTransformer; the project pins <4, so its users can do nothing about this warning.
            warnings.filterwarnings("ignore", message="HookedTransformer is deprecated", category=DeprecationWarning)
            super().__init__(cfg)
        if tokenizer is not None:
            self.set_tokenizer(tokenizer)
        for block in self.blocks:
            Block.of(block)
        self.unembed = with_class(self.unembed, RewardHead)
        self.hook_reward_tokens = HookPoint()  # [batch, pos]
        self.hook_reward = HookPoint()  # [batch]
        self.setup()

    def set_tokenizer(self, tokenizer: PreTrainedTokenizerBase, default_padding_side: str | None = None) -> None:
        """Keeps the tokenizer as it is: whether a beginning-of-sequence token comes first is its own affair.

        (`HookedTransformer` would load it again from the hub with `add_bos_token=True`, and change the reward.)
        """
        self.tokenizer = deepcopy(tokenizer)
        self.tokenizer.padding_side = default_padding_side or "right"
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        empty = self.tokenizer.encode("")
        self.cfg.tokenizer_prepends_bos = self.cfg.default_prepend_bos = len(empty) > 0 and empty[0] == self.tokenizer.bos_token_id

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride] - it returns rewards, not logits or a loss
        self,
        input: str | Sequence[str] | Int[Tensor, "batch pos"] | Float[Tensor, "batch pos d_model"],
        return_type: ReturnType = "reward",
        *,
        attention_mask: Bool[Tensor, "batch pos"] | Int[Tensor, "batch pos"] | PackedBatch | None = None,
        **kwargs: Any,
    ) -> Any:
        """Runs the model.

        Args:
            input: text, texts, tokens, or with `start_at_layer` a residual stream. Text is tokenised as `tokenizer(text)` does.
            return_type: "reward" [batch], read at the last real token; "reward_tokens" [batch, pos]; "logits" [batch, pos, 1], as
                TransformerLens' own tools expect; None computes nothing past the last layer.
            attention_mask: true on real tokens; padding may be on either side. Without one, every token counts as real. In its place, a
                `PackedBatch` whose tokens the input is: then "reward" is [row], a reward for each of its transcripts (with copies of the
                batch as rows of the input, [copy * row]).
            kwargs: `start_at_layer`, `stop_at_layer`, `past_kv_cache`, … of `HookedTransformer.forward`.

        Raises:
            InputError: another return type (a reward has no next-token loss); tokens that look padded come without a mask.
        """
        if return_type not in ("reward", "reward_tokens", "logits", None):
            raise InputError(f"return_type must be reward, reward_tokens, logits or None, got {return_type!r}")
        if not isinstance(input, Tensor):
            input, attention_mask = self._tokenize([input] if isinstance(input, str) else list(input))
        elif attention_mask is None and not input.is_floating_point():
            input = input[None] if input.ndim == 1 else input
            self._refuse_hidden_padding(input)
        if isinstance(attention_mask, PackedBatch):
            return self._forward_packed(input, return_type, attention_mask, **kwargs)
        if attention_mask is not None:
            attention_mask = attention_mask.to(self.cfg.device).long()
        inner = None if return_type is None else "logits"
        inner_mask = None if self._pads_only_on_the_right(attention_mask, kwargs) else attention_mask
        logits = super().forward(input, inner, attention_mask=inner_mask, **kwargs)
        if logits is None or kwargs.get("stop_at_layer") is not None or return_type == "logits":
            return logits
        rewards = self.hook_reward_tokens(logits[..., 0])
        if return_type == "reward_tokens":
            return rewards
        return self.hook_reward(rewards.gather(1, readout(rewards, attention_mask)[:, None])[:, 0])

    def _forward_packed(
        self,
        input: Int[Tensor, "batch token"] | Float[Tensor, "batch token d_model"],
        return_type: ReturnType,
        batch: PackedBatch,
        start_at_layer: int | None = None,
        stop_at_layer: int | None = None,
    ) -> Any:
        residual = (self._embed_packed(input, batch) if start_at_layer is None else input).to(self.cfg.device)
        for block in list(self.blocks)[start_at_layer:stop_at_layer]:
            residual = block(residual, attention_mask=batch)
        if stop_at_layer is not None:
            return residual
        residual = self.ln_final(residual)
        if return_type is None:
            return None
        logits = self.unembed(residual)
        if return_type == "logits":
            return logits
        rewards = self.hook_reward_tokens(logits[..., 0])
        return rewards if return_type == "reward_tokens" else self.hook_reward(rewards[:, batch.readout]).flatten()

    def _embed_packed(self, tokens: Int[Tensor, "batch token"], batch: PackedBatch) -> Float[Tensor, "batch token d_model"]:
        embedded = self.hook_embed(self.embed(tokens))
        if self.cfg.positional_embedding_type != "standard":
            return embedded
        # Each copy has its own: an edit of one must not reach the others.
        return embedded + self.hook_pos_embed(self.pos_embed.W_pos[batch.position].repeat(len(tokens), 1, 1))

    def _tokenize(self, texts: list[str]) -> tuple[Int[Tensor, "batch pos"], Bool[Tensor, "batch pos"]]:
        if self.tokenizer is None:
            raise InputError("this model has no tokenizer; pass tokens instead of text")
        if not texts or not all(texts):
            raise InputError("text must not be empty")
        if self.cfg.tokenizer_prepends_bos:  # a chat template may have written that token already
            texts = [text.removeprefix(str(self.tokenizer.bos_token)) for text in texts]
        encoded = self.tokenizer(texts, padding=True, return_tensors="pt")
        return encoded["input_ids"].to(self.cfg.device), encoded["attention_mask"].bool()

    def _pads_only_on_the_right(self, mask: Int[Tensor, "batch pos"] | None, kwargs: dict[str, Any]) -> bool:
        """Causal attention never looks right, so padding there needs no mask; the layers are then spared one."""
        if mask is None or kwargs.get("past_kv_cache") is not None:
            return False
        reads_left = self.tokenizer is not None and self.tokenizer.padding_side == "left"
        return not reads_left and bool((mask[:, 1:] <= mask[:, :-1]).all())

    def _refuse_hidden_padding(self, tokens: Int[Tensor, "batch pos"]) -> None:
        """Rows that end (or begin) with different numbers of pad tokens are a padded batch: its reward would be read from padding."""
        pad = self.tokenizer.pad_token_id if self.tokenizer is not None else None
        if not isinstance(pad, int):
            return
        is_pad = tokens.eq(pad)
        for edge in (is_pad, is_pad.flip(1)):
            run = edge.long().cumprod(1).sum(1)
            if run.min() != run.max():
                raise InputError("tokens look padded (rows with different numbers of pad tokens at an edge): pass attention_mask")

    def load_and_process_state_dict(self, state_dict: dict[str, Tensor], *args: Any, **kwargs: Any) -> None:
        """As `HookedTransformer`'s, with `center_unembed=False`: centring a head of one column sets every reward to 0.

        Raises:
            InputError: `center_unembed` is on, as it is by default in TransformerLens.
        """
        if kwargs.get("center_unembed", True):
            raise InputError("center_unembed must be False: centring a head of one column would set every reward to 0")
        super().load_and_process_state_dict(state_dict, *args, **kwargs)

    @classmethod
    def from_pretrained(  # pyright: ignore[reportIncompatibleMethodOverride] - it takes a reward model, and a base for an adapter
        cls,
        name_or_path: str | Path,
        *,
        base: str | Path | None = None,
        device: str | torch.device | None = None,
        dtype: torch.dtype = torch.float32,
        **hub: Any,
    ) -> "HookedRewardModel":
        """Loads a reward model: a `*ForSequenceClassification` checkpoint of one output, or a PEFT adapter, which is merged.

        Args:
            name_or_path: a folder, a hub id, or an embedded model: "helpful", "harmless", "mixed".
            base: the base model of an adapter, where the one that its config names is elsewhere.
            device: None is the GPU if there is one.
            hub: `revision`, `token`, `cache_dir`, `local_files_only` of the Hugging Face hub. Weights are read from safetensors only.

        Raises:
            InputError: a missing file, an unsupported architecture, more than one output, a checkpoint without a reward head, an adapter
                that does not fit its base.
        """
        check_device(device, dtype)
        checkpoint = checkpoints.load_reward_model(name_or_path, base=base, dtype=dtype, hub=hub)
        return cls._converted(checkpoint.model, checkpoint.tokenizer, device=device, name=checkpoint.name, copy=False)

    @classmethod
    def from_base(
        cls,
        name_or_path: str | Path,
        *,
        seed: int = 0,
        device: str | torch.device | None = None,
        dtype: torch.dtype = torch.float32,
        **hub: Any,
    ) -> "HookedRewardModel":
        """Loads a causal language model (`embedded.BASE` is embedded) and gives it a fresh head, drawn from normal(0, 0.02) with `seed`."""
        check_device(device, dtype)
        checkpoint = checkpoints.load_with_fresh_head(name_or_path, seed=seed, dtype=dtype, hub=hub)
        return cls._converted(checkpoint.model, checkpoint.tokenizer, device=device, name=checkpoint.name, copy=False)

    @classmethod
    def from_hf(
        cls,
        hf_model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase | None = None,
        *,
        device: str | torch.device | None = None,
        name: str | None = None,
    ) -> "HookedRewardModel":
        """Converts a Hugging Face `*ForSequenceClassification` model of one output. dtype is the model's own; it is left unchanged."""
        check_device(device, hf_model.dtype)
        return cls._converted(hf_model, tokenizer, device=device, name=name, copy=True)

    @classmethod
    def _converted(
        cls,
        hf_model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase | None,
        *,
        device: str | torch.device | None,
        name: str | None,
        copy: bool,
    ) -> "HookedRewardModel":
        hf_config = deepcopy(hf_model.config)
        checkpoints.check_reward_head(hf_config, type(hf_model).__name__, type(hf_model).__name__)
        dtype = hf_model.dtype
        cfg = HookedTransformerConfig.from_dict(
            architectures.lens_config(hf_config)
            | {
                "device": str(device or parallel.device() or get_device()),
                "init_weights": False,  # every weight is set below; memory that nobody writes to is never taken
                "dtype": dtype,
                "model_name": name or hf_config.name_or_path or hf_config.model_type,
            }
        )
        model = cls(cfg, tokenizer)
        state = architectures.to_lens(hf_model.state_dict(), hf_config, dtype, copy=copy)
        _fold_final_norm(state)
        state = {key: value.to(cfg.device) for key, value in state.items()}
        # assign: the weights keep Hugging Face's memory layout, which TransformerLens' components transpose to without a copy.
        missing, unexpected = model.load_state_dict(state, strict=False, assign=True)
        # Biases that an architecture lacks keep their zeros; buffers hold constants.
        left = [key for key in missing if key.split(".")[-1].lstrip("_") not in _KEEP]
        assert not left and not unexpected, (left, unexpected)
        model.hf_config = hf_config
        return model.eval().requires_grad_(False)

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes the Hugging Face layout: safetensors, config and tokenizer, as `AutoModelForSequenceClassification` reads them.

        The final norm's weights stay folded into the head: the saved model computes the same rewards with a norm weight of 1.

        Raises:
            InputError: the folder holds something, or a bias is not zero that the architecture cannot hold.
        """
        folder = Path(folder)
        if folder.exists() and any(folder.iterdir()):
            raise InputError(f"{folder} exists and is not empty")
        state = {key: value.detach().cpu() for key, value in self.state_dict().items()}
        bias = state.pop("unembed.b_U").float()
        if "ln_final.b" in state:
            # A Hugging Face head has no bias. The norm's bias may be any vector whose product with the head is that number.
            head = state["unembed.W_U"][:, 0].float()
            state["ln_final.b"] = (head * bias / head.dot(head)).to(self.cfg.dtype)
        elif bias.any():
            raise InputError(f"the head has a bias of {bias.item():g}, and {self.hf_config.model_type} has no place for one")
        hf_config = deepcopy(self.hf_config)
        hf_model = AutoModelForSequenceClassification.from_config(hf_config, dtype=self.cfg.dtype)
        weights = architectures.to_hf(state, hf_config)
        for key in weights.keys() - hf_model.state_dict().keys():
            # TransformerLens keeps a zero bias where the architecture has none.
            if weights.pop(key).any():
                raise InputError(f"{key} is not zero, and this {hf_config.model_type} config has no place for it")
        hf_model.load_state_dict(weights, strict=True)
        hf_model.save_pretrained(folder)
        if self.tokenizer is not None:
            self.tokenizer.save_pretrained(folder)


load = HookedRewardModel.from_pretrained

_KEEP = ("b_Q", "b_K", "b_V", "b_O", "b_in", "b_out", "b_U", "mask", "IGNORE", "rotary_sin", "rotary_cos")


def readout(
    rewards: Float[Tensor, "batch pos"], attention_mask: Bool[Tensor, "batch pos"] | Int[Tensor, "batch pos"] | None
) -> Int[Tensor, " batch"]:
    """The position at which the reward is read: the last real token, by the mask (a pad token may also be a real one)."""
    if attention_mask is None:
        return torch.full((len(rewards),), rewards.shape[1] - 1, device=rewards.device)
    if not attention_mask.any(1).all():
        raise InputError("a row has no real token")
    mask = attention_mask[:, -rewards.shape[1] :].long()
    return mask.shape[1] - 1 - mask.flip(1).argmax(1)


def _fold_final_norm(state: dict[str, Tensor]) -> None:
    """Moves the final norm's weight and bias into the head, in float32."""
    dtype = state["unembed.W_U"].dtype
    head = state["unembed.W_U"].float()
    if "ln_final.b" in state:
        state["unembed.b_U"] = (state["ln_final.b"].float() @ head).to(dtype)
        state["ln_final.b"] = torch.zeros_like(state["ln_final.b"])
    state["unembed.W_U"] = (state["ln_final.w"].float()[:, None] * head).to(dtype)
    state["ln_final.w"] = torch.ones_like(state["ln_final.w"])
