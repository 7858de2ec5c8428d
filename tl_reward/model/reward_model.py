"""Reward models as `HookedTransformer`s: load, convert, run, save.

The reward head is an unembedding of one column: `cfg.d_vocab_out == 1`, and `W_U[:, 0]` is the reward direction; a head of several outputs
has as many columns. The final norm's weights are folded into it, so that the residual stream, divided by the final norm's scale and
projected on `reward_direction`, sums to the reward. A head that is an MLP, or has a gate, is a module with hook points of its own in the
place of the unembedding (`heads.modules`).
"""

import warnings
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tl_reward.arguments import check_argument
from tl_reward.data.batches.packing import PackedBatch
from tl_reward.data.encoding import EndAt
from tl_reward.devices import check_fits
from tl_reward.errors import InputError, check_keywords
from tl_reward.model import checkpoints, inputs
from tl_reward.model.building import build
from tl_reward.model.checkpoints.folders import HubOptions
from tl_reward.model.checkpoints.placing import placed
from tl_reward.model.components import HookedTransformer, HookedTransformerConfig, HookPoint, TypedModuleList
from tl_reward.model.heads import modules
from tl_reward.model.heads import outputs as heads
from tl_reward.model.heads.caching import save_reward_tokens
from tl_reward.model.heads.layouts import SCORE, Layout
from tl_reward.model.heads.modules import RewardHead
from tl_reward.model.heads.saving import save
from tl_reward.model.inputs import Readout
from tl_reward.model.layers.attention import with_class
from tl_reward.model.layers.block import Block
from tl_reward.model.origin import MadeFrom, Origin, Weights

ReturnType = Literal["reward", "reward_tokens", "logits"] | None


class NoOptions(TypedDict):
    """What a function takes besides its own arguments: nothing. A misspelt one is refused with the nearest name."""


class HookedRewardModel(HookedTransformer):
    """A reward model with every hook point of `HookedTransformer`, and three of its own.

    `hook_reward_tokens` [batch, pos]: the reward read at each token. `hook_reward` [batch]: the reward at the read-out, the last real
    token; with a `PackedBatch` [copies, row]. `blocks.{l}.mlp.act_fn.hook_act` [batch, pos, d_mlp]: the activation function's output.

    Build one with `from_pretrained`, `from_hf` or `from_base`.
    """

    hf_config: Any
    readout = inputs.ReadoutSetting()
    """Where the reward is read: see `from_pretrained`."""
    outputs: tuple[str, ...] = ("reward",)
    """The names of the head's outputs, the columns of `W_U` where it is no MLP; a gate's sum of them comes last, and has no column."""
    output = heads.OutputSetting()
    """Which of them is the reward, or how they add up to it (`heads.outputs.Output`)."""
    end: EndAt | None = None
    """The token at which the head's layout reads the reward, where it is not simply the last one."""
    _published: heads.Output = None
    _layout: Layout = SCORE
    _weights = Weights(MadeFrom(), ())
    blocks: TypedModuleList[Block]  # pyright: ignore[reportIncompatibleVariableOverride] - all of them are made ours by `__init__`

    def __init__(
        self, cfg: HookedTransformerConfig, tokenizer: PreTrainedTokenizerBase | None = None, *, move_to_device: bool = True
    ) -> None:
        if cfg.n_devices > 1:
            raise InputError(f"n_devices must be 1, got {cfg.n_devices}: layers are not spread over several devices")
        with warnings.catch_warnings():
            # 4.0 removes HookedTransformer; the project pins <4, so its users can do nothing about this warning.
            warnings.filterwarnings("ignore", message="HookedTransformer is deprecated", category=DeprecationWarning)
            super().__init__(cfg, move_to_device=move_to_device)
        if tokenizer is not None:
            self.set_tokenizer(tokenizer)
        for block in self.blocks:
            Block.of(block)
        self.unembed = with_class(self.unembed, RewardHead)
        self.hook_reward_tokens = HookPoint()  # [batch, pos]
        self.hook_reward = HookPoint()  # [batch]
        self.setup()

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """What `to`, `half` and the like do: no edit of the weights."""
        with self._weights.through_a_cast(self.named_parameters):
            return super()._apply(fn, recurse)

    @property
    def origin(self) -> Origin:
        """What tells this model from others, weights that were edited in memory included. At its first use the weight files are read once,
        1 to 2 GB a second."""
        cfg, made, now = self.cfg, self._weights.made_from, self._weights.now(self.named_parameters())
        sizes = {"layers": cfg.n_layers, "d_model": cfg.d_model, "d_mlp": cfg.d_mlp or 0, "heads": cfg.n_heads}  # all have MLPs
        return Origin(made.path, self.hf_config.model_type, **sizes, weights=now.hash, revision=made.revision, edited=now.edited)

    @property
    def reward_direction(self) -> Float[Tensor, " d_model"]:
        """What the residual stream at the read-out, over the final norm's scale, is projected on to give the reward (less `b_U`'s share).

        Raises InputError where it is none: the head is an MLP, or the reward what a gate makes of several outputs."""
        return modules.direction_of(self.unembed, self.output, self.outputs)

    @property
    def unread_token(self) -> int | None:
        """The pad token that the read-out passes over at the end of a text, with `readout="hf"`."""
        return getattr(self.hf_config, "pad_token_id", None) if self.readout == "hf" else None

    def set_tokenizer(self, tokenizer: PreTrainedTokenizerBase, default_padding_side: str | None = None) -> None:
        """Keeps the tokenizer as it is: whether a beginning-of-sequence token comes first is its own affair.

        (`HookedTransformer` would load it again from the hub with `add_bos_token=True`, and change the reward.)
        """
        inputs.check_tokenizer(tokenizer, self.cfg)
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
            return_type: "reward" [batch], read at the last real token, or the last that `end` names; "reward_tokens" [batch, pos];
                "logits" [batch, pos, output], as TransformerLens' own tools expect; None computes nothing past the last layer.
            attention_mask: true on real tokens; padding may be on either side. Without one, every token counts as real. In its place, a
                `PackedBatch` whose tokens the input is: then "reward" is [row], a reward for each of its transcripts (with copies of the
                batch as rows of the input, [copy * row]).
            kwargs: `start_at_layer`, `stop_at_layer`, `past_kv_cache` of `HookedTransformer.forward`; for texts `padding_side`; for a
                residual stream `tokens`, which `readout="hf"` needs. Those without a meaning here (`loss_per_token`, another
                `prepend_bos` than the tokenizer's) are refused.

        Raises:
            InputError: another return type (a reward has no next-token loss); tokens that look padded come without a mask, are more than
                the context, or not in the vocabulary; UnknownOption: another keyword.
        """
        if return_type not in ("reward", "reward_tokens", "logits", None):
            raise InputError(f"return_type must be reward, reward_tokens, logits or None, got {return_type!r}")
        inner_kwargs = inputs.inner_options(kwargs, self.cfg, is_text=not isinstance(input, Tensor))
        if not isinstance(input, Tensor):
            input, attention_mask = inputs.tokenise(input, self.tokenizer, self.cfg, kwargs.get("padding_side"), self.end)
        elif attention_mask is None and not input.is_floating_point():
            input = input[None] if input.ndim == 1 else input
            inputs.refuse_hidden_padding(input, self.tokenizer)
        tokens, kwargs = kwargs.get("tokens", input), inner_kwargs
        if isinstance(attention_mask, PackedBatch):
            return self._forward_packed(input, return_type, attention_mask, **kwargs)
        if kwargs.get("start_at_layer") is None:
            inputs.check_tokens(input, self.cfg)
        if attention_mask is not None:
            attention_mask = attention_mask.to(self.cfg.device).long()
        inner = None if return_type is None else "logits"
        inner_mask = None if inputs.pads_only_on_the_right(attention_mask, kwargs, self.tokenizer) else attention_mask
        given = super().forward(input, inner, attention_mask=inner_mask, **kwargs)
        if given is None or kwargs.get("stop_at_layer") is not None:
            return given
        return self._rewards(given, return_type, tokens, attention_mask, None)

    def _rewards(
        self, given: Float[Tensor, "batch pos *"], return_type: ReturnType, tokens: Any, mask: Any, batch: PackedBatch | None
    ) -> Any:
        """From what the head's module gave for each token of padded rows, with their mask, or of a packed batch."""
        logits = modules.outputs_at_tokens(self.unembed, given, batch, tokens)
        if return_type == "logits":
            return logits
        rewards = self.hook_reward_tokens(heads.reward_of(logits, self.output, self.outputs))
        if return_type == "reward_tokens":
            return rewards
        if batch is not None:
            modules.check_gate_reads(self.unembed, rewards, batch, tokens, batch.readout)
            return self.hook_reward(rewards[:, batch.readout]).flatten()
        at = inputs.readout(rewards, mask, inputs.read_tokens(tokens, self.unread_token, self.end, rewards, mask))
        modules.check_gate_reads(self.unembed, rewards, None, tokens, at)
        return self.hook_reward(rewards.gather(1, at[:, None])[:, 0])

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
        return self._rewards(self.unembed(residual), return_type, None, None, batch)

    def _embed_packed(self, tokens: Int[Tensor, "batch token"], batch: PackedBatch) -> Float[Tensor, "batch token d_model"]:
        inputs.check_vocabulary(tokens, self.cfg)
        embedded = self.hook_embed(self.embed(tokens))
        if self.cfg.positional_embedding_type != "standard":
            return embedded
        # Each copy has its own: an edit of one must not reach the others.
        return embedded + self.hook_pos_embed(self.pos_embed.W_pos[batch.position].repeat(len(tokens), 1, 1))

    def get_caching_hooks(
        self,
        names_filter: Any = None,
        incl_bwd: bool = False,
        device: Any = None,
        remove_batch_dim: bool = False,
        cache: dict[str, Any] | None = None,
        pos_slice: Any = None,
    ) -> Any:
        """As TransformerLens', which takes the position for the last dimension but one: `hook_reward_tokens` has its as the last."""
        cache, *both = super().get_caching_hooks(names_filter, incl_bwd, device, remove_batch_dim, cache, pos_slice)
        save_reward_tokens(cache, both)
        return cache, *both

    def generate(self, *_: Any, **__: Any) -> Any:
        """Raises InputError: a reward model predicts no next token."""
        raise InputError("a reward model writes no text: its head gives one number, and no next token; generate with its base model")

    generate_stream = generate

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
        template: str | Path | None = None,
        device: str | torch.device | None = None,
        dtype: torch.dtype = torch.float32,
        readout: Readout = "mask",
        head: str | None = None,
        output: heads.Output = None,
        **hub: Unpack[HubOptions],
    ) -> "HookedRewardModel":
        """Loads a reward model: a checkpoint with any of the published heads (`docs/how-to/heads.md`), or a PEFT adapter, which is merged.

        Args:
            name_or_path: a folder, a hub id, or an embedded model: "helpful", "harmless", "mixed".
            base: the base model of an adapter, where the one that its config names is elsewhere.
            template: how transcripts are written, as for `set_template`: "hh", "plain", or a Jinja file. None is the tokenizer's own.
            device: None is the GPU if there is one.
            readout: where the reward is read. "mask": at the last token of the text. "hf": where Hugging Face reads it, at the last token
                that is not `config.pad_token_id`; the two differ where a text ends with pad tokens. A setting, no part of the checkpoint.
            head: the reward of a language model, which no file tells: "token:0" is the logit of a token, "token:Yes-No" a difference of
                two; tokens are ids, or texts of one token. Digits are an id; "token:text=5" is the token "5", "token:id=5" the id.
            output: which output of the head is the reward: a name of `outputs`, an index, or weights; None is the only one, or what the
                published model takes for its reward. It is set later as `model.output`.
            hub: `revision`, `token`, `cache_dir`, `local_files_only` of the Hugging Face hub. Weights are read from safetensors only.

        Raises:
            InputError: a missing or damaged file, an unsupported architecture, a checkpoint without a reward head or with one that is not
                known, weights that are missing or have no place, an adapter that does not fit its base, an output that is not there;
                UnknownOption: another keyword; OutOfMemory: the weights have no room on the device, by the headers of their files.
        """
        check_argument("readout", readout, Readout)
        with placed(str(name_or_path), device, dtype) as chosen:
            asked: Any = {"base": base, "template": template, "dtype": dtype, "device": chosen, "head": head, "output": output}
            checkpoint = checkpoints.load_reward_model(name_or_path, **asked, hub=hub)
            return build(cls, *checkpoint, device=chosen, readout=readout, output=output)

    @classmethod
    def from_base(
        cls,
        name_or_path: str | Path,
        *,
        seed: int = 0,
        device: str | torch.device | None = None,
        dtype: torch.dtype = torch.float32,
        **hub: Unpack[HubOptions],
    ) -> "HookedRewardModel":
        """Loads a causal language model (`embedded.BASE` is embedded) and gives it a fresh head, drawn from normal(0, 0.02) with `seed`."""
        with placed(str(name_or_path), device, dtype) as chosen:
            checkpoint = checkpoints.load_with_fresh_head(name_or_path, seed=seed, dtype=dtype, device=chosen, hub=hub)
            return build(cls, *checkpoint, device=chosen)

    @classmethod
    def from_hf(
        cls,
        hf_model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase | None = None,
        *,
        device: str | torch.device | None = None,
        name: str | None = None,
        readout: Readout = "mask",
        output: heads.Output = None,
        **unknown: Unpack[NoOptions],
    ) -> "HookedRewardModel":
        """Converts a Hugging Face `*ForSequenceClassification` or `*ForTokenClassification` model, of one output or several (`output`, as
        in `from_pretrained`). dtype is the model's own; it is left unchanged.

        Raises:
            InputError: an unsupported architecture, weights without a place, such as an adapter's that is not merged, quantised or not
                finite ones; UnknownOption: another keyword.
        """
        check_keywords(unknown, ("hf_model", "tokenizer", "device", "name", "readout", "output"), "from_hf")
        check_argument("readout", readout, Readout)
        called = name or type(hf_model).__name__
        with placed(called, device, hf_model.dtype) as chosen:
            check_fits(called, sum(each.numel() for each in hf_model.parameters()), hf_model.dtype, chosen)
            return build(cls, hf_model, tokenizer, name, device=chosen, readout=readout, output=output)

    def save_pretrained(self, folder: str | Path, **unknown: Unpack[NoOptions]) -> None:
        """Writes safetensors, config and tokenizer: as `AutoModelForSequenceClassification` reads them where it has a place for the head,
        else in the layout that the head was read from. Loaded again, the model gives the same rewards.

        The final norm's weights stay folded into the head: the saved model computes the same rewards with a norm weight of 1.

        Raises:
            InputError: the folder holds something, or a bias is not zero that the architecture cannot hold.
        """
        check_keywords(unknown, ("folder",), "save_pretrained")
        folder = Path(folder)
        if folder.exists() and any(folder.iterdir()):
            raise InputError(f"{folder} exists and is not empty")
        save(self, folder)
        if self.tokenizer is not None:
            self.tokenizer.save_pretrained(folder)


load = HookedRewardModel.from_pretrained
