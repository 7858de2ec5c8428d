"""Hugging Face architectures as TransformerLens ones: a row of the table each."""

from tl_reward.model.architectures.table import ARCHITECTURES, Architecture, architecture_of, layers_with_positions, lens_config
from tl_reward.model.architectures.weights import Weight, kv_heads

__all__ = ["ARCHITECTURES", "Architecture", "Weight", "architecture_of", "kv_heads", "layers_with_positions", "lens_config"]
