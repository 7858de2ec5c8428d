"""How a cache holds rewards at tokens, for TransformerLens' hooks that take the position for the last dimension but one."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from tl_reward.model.components import HookPoint


def save_reward_tokens(cache: dict[str, Any], both: Sequence[list[tuple[str, Any]]]) -> None:
    """Makes the caching hooks at `hook_reward_tokens` [batch, pos], forward and backward, see a column, which the cache does not keep."""

    def with_one_column(save: Any, key: str) -> Any:
        def hook_fn(tensor: Tensor, hook: HookPoint) -> None:
            save(tensor[..., None], hook=hook)
            cache[key] = cache[key][..., 0]

        return hook_fn

    name = "hook_reward_tokens"
    for key, hooks in zip((name, f"{name}_grad"), both, strict=True):
        hooks[:] = [(at, with_one_column(save, key) if at == name else save) for at, save in hooks]
