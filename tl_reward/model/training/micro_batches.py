"""How many pairs does one pass of a training hold? As many as memory allows. An optimiser step adds up the gradients of as many passes as
its batch needs, each with its share of the pairs, so that it is the step of the whole batch."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from tl_reward import parallel
from tl_reward.devices import free_bytes, gib
from tl_reward.errors import OutOfMemory, first_line, is_out_of_memory
from tl_reward.model.training.record import last_checkpoint

# Of what is free, the rest is for what allocators lose between blocks, and for kernels' scratch.
USED = 0.8


class Measured(NamedTuple):
    """Bytes that a forward pass keeps for its backward pass: `fixed`, such as weights cast to bfloat16, and those of each token."""

    fixed: int
    per_token: float


def measured(model: Any, row: Mapping[str, Int[Tensor, "1 pos"]]) -> Measured:
    """Counts the tensors that autograd keeps, for a transcript once and twice. Weights themselves do not count.

    To what is kept comes what one layer takes while its gradients are computed: at most once more what it kept, and its output's gradient.
    """
    own = {each.untyped_storage().data_ptr() for each in (*model.parameters(), *model.buffers())}
    one, two = (_kept(model, {name: tensor.repeat(times, 1) for name, tensor in row.items()}, own) for times in (1, 2))
    length = next(iter(row.values())).shape[1]
    per_token = (two - one) / length
    return Measured(max(0, one - (two - one)), per_token * (1 + 1 / model.config.num_hidden_layers))


def _kept(model: torch.nn.Module, inputs: Mapping[str, Tensor], own: set[int]) -> int:
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()  # the graph keeps it alive, so that no other takes its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        outputs = model(**inputs, use_cache=False)
    del outputs
    return sum(kept.values())


def to_come(model: torch.nn.Module, *, has_states: bool) -> int:
    """Bytes that the steps of a training take whatever its batches are: gradients, AdamW's two states of each weight where there are none
    yet, and one gradient before it is added."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    sizes = [parameter.numel() * parameter.element_size() for parameter in trained]
    return sum(sizes) * (1 if has_states else 3) + max(sizes)


def tokens_that_fit(measured: Measured, free: int, later: int) -> int:
    """Tokens of one pass, with padding. `later`: what comes besides (`to_come`). 0 where not even that fits."""
    return max(0, int((USED * free - later - measured.fixed) / measured.per_token))


def number_of_parts(lengths: Sequence[int], tokens: int) -> int:
    """The fewest equal parts of a batch, in order of length, of which each holds so many tokens with its padding, or one pair.

    Args:
        lengths: of the longer side of each pair; both sides are padded to the longest of their part.

    >>> number_of_parts([10, 20, 100, 90], tokens=800), number_of_parts([10, 20, 100, 90], tokens=400)
    (1, 2)
    """
    ordered = sorted(lengths)
    for count in range(1, len(ordered)):
        if all(2 * len(part) * part[-1] <= tokens for part in np.array_split(ordered, count)):
            return count
    return max(1, len(ordered))


def lengths_of(inputs: Mapping[str, Tensor]) -> Int[Tensor, " pair"]:
    """Tokens of the longer side of each pair, in a batch as TRL makes it: the chosen rows, then the rejected ones, padded at the right."""
    return inputs["attention_mask"].sum(1).view(2, -1).amax(0)


def parts_of(inputs: Mapping[str, Tensor], count: int) -> list[dict[str, Tensor]]:
    """A batch in equal parts (to one pair), in order of length, each padded to its own longest row."""
    lengths = lengths_of(inputs)
    found = []
    for pairs in lengths.argsort(stable=True).tensor_split(count):
        rows, longest = torch.cat([pairs, pairs + len(lengths)]), int(lengths[pairs].max())
        found.append({name: tensor[rows, :longest] for name, tensor in inputs.items()})
    return found


@contextmanager
def said_in_one_line(output: Path, *, full: bool) -> Iterator[None]:
    """Memory that runs out is said in one line, with what was free and what would help.

    Raises:
        OutOfMemory: in the place of what torch raises.
    """
    device = parallel.device() or ("cuda" if torch.cuda.is_available() else "cpu")
    free = free_bytes(device)
    try:
        yield
    except (RuntimeError, MemoryError, OutOfMemory) as error:
        if not is_out_of_memory(error):
            raise
        help_ = "a shorter max_length, method lora or" if full else "a shorter max_length or"
        kept = "; what was saved is kept, and resume goes on from there" if last_checkpoint(output) else ""
        why = first_line(error).rstrip(".")
        raise OutOfMemory(
            f"out of memory in training: {why}; when it began, {gib(free)} were free on {device}; {help_} more free memory would help{kept}"
        ) from None
