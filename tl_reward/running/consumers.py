"""What an analysis is while a model reads pairs: it is told of each batch, shown each site, and adds up over processes at the end."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from tl_reward import parallel
from tl_reward.data.batches.packing import Batch
from tl_reward.errors import InputError
from tl_reward.sites import Site


@runtime_checkable
class BatchConsumer(Protocol):
    """What consumers of activations and of gradients have in common.

    Each of several processes has a consumer of its own, which sees a share of the batches. After an error, `end` and `merge` do not come.
    Whether what a site shows is finite is asked once a batch: where it is not, the error comes after the last site, before `end`.
    """

    def begin(self, batch: Batch, /) -> None:
        """Called once for each batch, before its first site."""
        ...

    def end(self) -> None:
        """Called once for each batch, after its last site."""
        ...

    def merge(self) -> None:
        """Called once after all batches where several processes run: adds up, with `parallel.add_up`, what the consumers of all have.

        One that cannot add up says so with `parallel.require_one`.
        """
        ...


@runtime_checkable
class Consumer(BatchConsumer, Protocol):
    """What `stream` feeds."""

    def layer(self, site: Site, activation: Float[Tensor, "token ..."], base: Float[Tensor, "token ..."] | None, /) -> None:
        """Called at each site of a batch, from the first layer to the last, with its activations at the tokens of the batch, without
        padding, and those of the base model there, if one runs beside."""
        ...


@runtime_checkable
class GradientConsumer(BatchConsumer, Protocol):
    """What `backpropagate` feeds."""

    def layer(self, site: Site, excess: Float[Tensor, "token ..."], gradient: Float[Tensor, "token ..."], /) -> None:
        """Called at each site of a batch, from the last layer to the first, with how far its activations exceed the baseline and the
        gradient there. With steps, it is called at each site for each step between one `begin` and one `end`; the gradients are then
        those of a mean over steps, so that all of them are added up."""
        ...


# A consumer that keeps nothing from one site to the next: site, activations [token …], batch, and the base model's activations if there
# is one.
Function = Callable[[Site, Tensor, Batch, Tensor | None], None]
# Adds up, with `parallel.add_up`, what the functions of all processes have.
Merge = Callable[[], None]


def check_consumer(given: Any) -> None:
    """Says no before a pass to what would fail within it.

    Raises:
        InputError: a method is missing; a class stands in the place of an object of it.
    """
    if isinstance(given, type):
        raise InputError(f"a consumer must be an object, got the class {given.__name__} itself: call it")
    lacks = [name for name in ("begin", "layer", "end", "merge") if not callable(getattr(given, name, None))]
    if lacks:
        raise InputError(f"a consumer must have begin, layer, end and merge; {type(given).__name__} lacks {', '.join(lacks)}")


def consumer_of(given: Consumer | Function, merge: Merge | None) -> Consumer:
    """A function as a consumer; a consumer as it is.

    Raises:
        InputError: a function without `merge` where several processes run; `merge` beside a consumer, which has its own.
    """
    if not callable(given) or isinstance(given, type):
        check_consumer(given)
    if isinstance(given, Consumer):
        if merge is not None:
            raise InputError(f"merge goes with a function; {type(given).__name__} has its own")
        return given
    if merge is None:
        parallel.require_one("a pass over activations or gradients that gives no merge")
    return _FunctionConsumer(given, merge)


@dataclass
class _FunctionConsumer:
    function: Function
    add_up: Merge | None
    _batch: Batch = field(init=False)

    def begin(self, batch: Batch) -> None:
        self._batch = batch

    def layer(self, site: Site, activation: Tensor, base: Tensor | None) -> None:
        self.function(site, activation, self._batch, base)

    def end(self) -> None:
        pass

    def merge(self) -> None:
        if self.add_up is not None:
            self.add_up()
