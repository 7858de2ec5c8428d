"""What the model is made of that TransformerLens makes. Nothing else in the package imports `transformer_lens`.

`docs/decisions` says which of it TransformerLens 4 keeps. What we could not lose:

- `HookPoint`, and of `HookedTransformer` what it inherits: `hooks`, `run_with_cache`, `hook_dict`. They are every place to read or edit.
- The names of weights, hook points and config fields, which users' code and `ActivationCache` know.

What we could write ourselves, with the parity tests that there are:

- `HookedTransformer`: its loop over layers (packed batches have their own), `to_tokens`, `W_U` and the like.
- `AbstractAttention`, `Attention`, `GroupedQueryAttention`: their weights, and the way by scores and pattern where hooks listen there.
- `TransformerBlock`: its parts; its `forward` is used only where each head has an input of its own.
- `GatedMLP`, `Unembed`: their weights. `MLP`, `RMSNorm` and the other norms, embeddings: as they are.
- `POST_NORM_ARCHITECTURES`, `get_device`: a line each.
"""

from transformer_lens import HookedTransformer, HookedTransformerConfig
from transformer_lens.cache.key_value_cache_entry import TransformerLensKeyValueCacheEntry
from transformer_lens.components.abstract_attention import AbstractAttention
from transformer_lens.components.attention import Attention
from transformer_lens.components.grouped_query_attention import GroupedQueryAttention
from transformer_lens.components.mlps.gated_mlp import GatedMLP
from transformer_lens.components.mlps.mlp import MLP
from transformer_lens.components.rms_norm import RMSNorm
from transformer_lens.components.transformer_block import TransformerBlock
from transformer_lens.components.unembed import Unembed
from transformer_lens.hook_points import HookPoint
from transformer_lens.utilities.architectures import POST_NORM_ARCHITECTURES
from transformer_lens.utilities.devices import get_device
from transformer_lens.utilities.typed_module_list import TypedModuleList

__all__ = [
    "MLP",
    "POST_NORM_ARCHITECTURES",
    "AbstractAttention",
    "Attention",
    "GatedMLP",
    "GroupedQueryAttention",
    "HookPoint",
    "HookedTransformer",
    "HookedTransformerConfig",
    "RMSNorm",
    "TransformerBlock",
    "TransformerLensKeyValueCacheEntry",
    "TypedModuleList",
    "Unembed",
    "get_device",
]
