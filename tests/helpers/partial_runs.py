"""Runs of what one test needs and no more, which `Results.add` would refuse."""

from collections.abc import Mapping
from typing import Any, cast

from torch import Tensor

from tl_reward.results.store import Results


def put(results: Results, section: str, name: str, entry: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None) -> None:
    cast(dict[str, Any], results.sections).setdefault(section, {})[name] = dict(entry)
    results.tensors |= {f"{section}/{name}/{key}": tensor for key, tensor in (tensors or {}).items()}
