"""Users' own interventions: from a function, and by name from the command line."""

import importlib
import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tl_reward.arguments import check_argument
from tl_reward.data.batches.packing import PackedBatch
from tl_reward.data.batches.padding import TokenBatch
from tl_reward.errors import InputError
from tl_reward.interventions.protocol import Hooks, Intervention
from tl_reward.interventions.user_code import defined_at, raised_at
from tl_reward.sites import Site, Where


@dataclass(frozen=True)
class FunctionIntervention:
    """An intervention made of a function, by `intervention`."""

    function: Callable[..., Tensor | None]
    places: tuple[str, ...]
    where: Where
    per_token: bool

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor | None:
        return self.function(*args, **kwargs)

    def hooks(self, batch: TokenBatch | PackedBatch) -> Hooks:
        try:
            takes_hook = "hook" in inspect.signature(self.function).parameters
        except ValueError:  # a builtin
            takes_hook = False

        mask = batch.at(self.where)

        @wraps(self.function)
        def fn(activation: Tensor, hook: Any) -> Any:  # what it gives is checked where the hook runs
            given = activation.clone()  # may be edited in place
            edited = self.function(given, hook=hook) if takes_hook else self.function(given)
            edited = given if edited is None else edited
            if self.where == "all" or not isinstance(edited, Tensor) or edited.shape != activation.shape:
                return edited
            return torch.where(mask.view(*mask.shape, *[1] * (activation.ndim - 2)), edited.to(activation), activation)

        return [(name, fn) for name in self.places]


Edited = Callable[..., Tensor | None]


def intervention(*places: Any, where: Where = "all", per_token: bool = False) -> Callable[[Edited], FunctionIntervention]:
    """Makes an intervention of a function from activation to activation.

        @tl_reward.intervention(Site(20, "mlp_out"), per_token=True)
        def halve(activation):
            return activation / 2

    The activation is [batch, pos, …] and floating point; the function returns one of the same shape. It may also take `hook`, whose
    `name` says where it is.

    Args:
        places: sites, or names of hook points.
        where: the tokens at which the edit counts: "readout", "response" or "all". Do not pick them by their index: rows are padded on
            the right, and with `per_token` a batch is one row of many transcripts.
        per_token: what the function does to a token depends on nothing but that token: no mean over `pos`, no index into it. Then
            transcripts that share a prefix share its computation (see `Intervention`).
    """
    if not places:
        raise InputError("an intervention needs a place: a Site, or the name of a hook point, got none")
    wrong = [place for place in places if not isinstance(place, (Site, str))]
    if wrong:
        raise InputError(f"a place must be a Site or the name of a hook point, got {type(wrong[0]).__name__} (forgot the brackets?)")
    check_argument("where", where, Where)
    check_argument("per_token", per_token, bool)
    names = tuple(place.hook_name if isinstance(place, Site) else place for place in places)

    def made(function: Edited) -> FunctionIntervention:
        check_argument("what becomes an intervention", function, Callable[..., Any])
        return FunctionIntervention(function, names, where, per_token)

    return made


def load_interventions(names: Sequence[str]) -> list[Intervention]:
    """The interventions of some names, each module:name; modules are also looked for in the working directory.

    A name may be an intervention, or something that gives one when called without arguments.

    Raises:
        InputError: a name of another form, a module that cannot be imported, a name that is no intervention.
    """
    return [_load(name) for name in names]


def _load(name: str) -> Intervention:
    module_name, _, attribute = name.partition(":")
    if not attribute.isidentifier() or not all(part.isidentifier() for part in module_name.split(".")) or module_name.endswith(".py"):
        raise InputError(f"an intervention is named module:name, such as edits:halve for halve in edits.py; got {name!r}")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise InputError(f"{name}: {error}; modules are looked for in {here} and among installed packages") from error
    except Exception as error:
        raise InputError(f"{name}: {type(error).__name__} at {raised_at(error)}: {error}") from error
    if not hasattr(module, attribute):
        own = ", ".join(key for key, value in vars(module).items() if _is_intervention(value)) or "none"
        raise InputError(f"{module_name} has no {attribute!r}; its interventions: {own}")
    found = getattr(module, attribute)
    if not _is_intervention(found) and callable(found):
        try:
            found = found()
        except Exception as error:
            raise InputError(
                f"{name} ({defined_at(found)}) is no intervention, and gives none when called without arguments ({error}); make one of a "
                "function with @tl_reward.intervention(site)"
            ) from error
    if not isinstance(found, Intervention):
        raise InputError(f"{name} must be an intervention, with hooks(batch), or give one when called; got {type(found).__name__}")
    return found


def _is_intervention(value: Any) -> bool:
    return isinstance(value, Intervention) and not isinstance(value, type)
