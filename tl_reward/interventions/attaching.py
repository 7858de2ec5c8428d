"""Hooks on a model and off it again: those of some interventions, for one batch."""

import difflib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from tl_reward.data.batches.packing import Batch
from tl_reward.errors import InputError
from tl_reward.interventions.protocol import Hooks, hooks_of
from tl_reward.model.reward_model import HookedRewardModel

# Hook points that TransformerLens runs only where a model is told to.
_SWITCHED = {"attn_in": "use_attn_in", "mlp_in": "use_hook_mlp_in", "result": "use_attn_result"} | dict.fromkeys(
    ("q_input", "k_input", "v_input"), "use_split_qkv_input"
)


@contextmanager
def attached(model: HookedRewardModel, hooks: Hooks) -> Iterator[None]:
    """Attaches forward hooks, and takes off these and no others at the end, after an exception too.

    Raises:
        InputError: the model has no hook point of that name.
    """
    for name, _ in hooks:
        check_hook_point(model, name)
    with model.hooks(fwd_hooks=[*hooks]):
        yield


def check_hook_point(model: HookedRewardModel, name: str) -> None:
    """Raises InputError where a model has no hook point of that name, or one that never runs."""
    if name not in model.hook_dict:
        near = difflib.get_close_matches(name, model.hook_dict, n=3)
        raise InputError(
            f"no hook point {name!r} in {model.cfg.model_name}, whose layers are [0, {model.cfg.n_layers}); nearest: {', '.join(near)}"
        )
    point = name.rsplit("hook_", 1)[-1]
    if point in _SWITCHED and not getattr(model.cfg, _SWITCHED[point]):
        raise InputError(f"{name} does nothing unless {_SWITCHED[point]} is on: model.set_{_SWITCHED[point]}(True)")


@contextmanager
def edited(model: HookedRewardModel, batch: Batch, interventions: Sequence[Any]) -> Iterator[Hooks]:
    """The model with some interventions, for one batch, and their hooks. Each is asked for its hooks under those before it, so that one
    that runs the model itself (a patch) sees their edits."""
    hooks: Hooks = []
    with ExitStack() as stack:
        for intervention in interventions:
            own = hooks_of([intervention], batch)
            stack.enter_context(attached(model, own))
            hooks += own
        yield hooks
