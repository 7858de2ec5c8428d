"""Consumers of activations and of gradients: what they are told, in which order, and functions in their place."""

import inspect
from typing import Any

import pytest
import torch
from torch import Tensor

from tl_reward import parallel
from tl_reward.data.batches.packing import Batch
from tl_reward.data.readers import load_pairs
from tl_reward.errors import InputError
from tl_reward.running.activations import stream
from tl_reward.running.baselines import BaselineAtTokens, ConstantBaseline
from tl_reward.running.consumers import consumer_of
from tl_reward.running.gradients import backpropagate
from tl_reward.running.options import RunOptions
from tl_reward.sites import Site

PAIRS = load_pairs("embedded", split="find", limit=6)
SITES = [Site(0, "mlp_post"), Site(1, "mlp_post"), Site(1, "resid_post")]
SMALL: RunOptions = {"max_tokens": 1200}


class Listener:
    """Notes what it is told; a site by itself, a batch by its rows."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def begin(self, batch: Batch) -> None:
        self.told.append(tuple(batch.row.tolist()))

    def layer(self, site: Site, activation: Tensor, other: Tensor | None, /) -> None:
        self.told.append(site)

    def end(self) -> None:
        self.told.append("end")

    def merge(self) -> None:
        self.told.append("merge")

    def by_batch(self, length: int) -> list[list[Any]]:
        assert len(self.told) % length == 0
        return [self.told[i : i + length] for i in range(0, len(self.told), length)]


def test_each_batch_begins_shows_its_sites_from_the_first_layer_on_and_ends(tiny):
    listener = Listener()
    stream(tiny, PAIRS, SITES, listener, **SMALL)
    told = listener.by_batch(5)
    assert len(told) > 1 and all(part[1:] == [*SITES, "end"] for part in told)
    rows = [row for part in told for row in part[0]]
    assert sorted(rows) == list(range(len(rows)))


@pytest.mark.parametrize("steps", [None, 3])
def test_gradients_come_from_the_last_layer_on_and_steps_lie_between_one_begin_and_one_end(tiny, steps):
    listener = Listener()
    neurons = SITES[:2]
    backpropagate(tiny, PAIRS, neurons, listener, steps=steps, **SMALL)
    sites = neurons[::-1] * (steps or 1)
    told = listener.by_batch(len(sites) + 2)
    assert len(told) > 1 and all(part[1:] == [*sites, "end"] for part in told)


def test_with_several_processes_a_consumer_merges_at_the_end_and_a_function_needs_to_say_how(tiny, monkeypatch):
    monkeypatch.setattr(parallel, "count", lambda: 2)
    monkeypatch.setattr(parallel, "rank", lambda: 0)
    monkeypatch.setattr(parallel, "gathered", lambda value: [value])
    monkeypatch.setattr(parallel, "_store", lambda: None)
    monkeypatch.setattr(parallel, "look_around", lambda: None)
    with pytest.raises(InputError, match="gives no merge runs in one process alone, got 2"):
        stream(tiny, PAIRS, SITES, lambda *_: None)
    told = []
    for run in (stream, backpropagate):
        listener = Listener()
        run(tiny, PAIRS, SITES, listener, **SMALL)
        assert listener.told[-2:] == ["end", "merge"] and listener.told.count("merge") == 1
    stream(tiny, PAIRS, SITES, lambda *_: told.append("site"), merge=lambda: told.append("merge"))
    assert told[-1] == "merge" and set(told[:-1]) == {"site"}


def test_one_process_merges_nothing_and_a_consumer_has_its_own_merge(tiny):
    told = []
    stream(tiny, PAIRS, SITES, lambda site, *_: told.append(site), merge=lambda: told.append("merge"))
    assert set(told) == {*SITES}
    with pytest.raises(InputError, match="merge goes with a function; Listener has its own"):
        stream(tiny, PAIRS, SITES, Listener(), merge=lambda: None)


def test_a_baseline_at_some_tokens_leaves_no_excess_at_the_others(tiny):
    found = []

    class Excess(Listener):
        def begin(self, batch: Batch) -> None:
            self.meant = batch.flat(batch.at("readout").float()).bool()

        def layer(self, site: Site, activation: Tensor, other: Tensor | None) -> None:
            found.append((activation[~self.meant], activation[self.meant]))

    ones = torch.ones(tiny.cfg.n_layers, tiny.cfg.d_mlp)
    backpropagate(tiny, PAIRS, SITES[:1], Excess(), baseline=BaselineAtTokens("readout", ConstantBaseline(ones)), **SMALL)
    backpropagate(tiny, PAIRS, SITES[:1], Excess(), baseline=ConstantBaseline(ones), **SMALL)
    half = len(found) // 2
    for (others, meant), (_, whole) in zip(found[:half], found[half:], strict=True):
        assert not others.any() and meant.any()
        assert torch.equal(meant, whole)


class NoMerge:
    def begin(self, batch: Batch) -> None: ...

    def layer(self, site: Site, activation: Tensor, other: Tensor | None, /) -> None: ...

    def end(self) -> None: ...


@pytest.mark.parametrize(
    ("given", "says"), [(NoMerge(), "NoMerge lacks merge"), (Listener, "got the class Listener itself"), (3, "int lacks begin, layer")]
)
def test_what_is_no_consumer_is_refused_before_a_pass(tiny, given: Any, says: str):
    # Unwrapped, as users have them: the tests' checker of types would say no first.
    with pytest.raises(InputError, match=says):
        inspect.unwrap(consumer_of)(given, None)
    with pytest.raises(InputError, match=says):
        inspect.unwrap(backpropagate)(tiny, PAIRS[:1], SITES[:1], given)


def test_a_site_that_is_asked_for_twice_has_the_base_models_activations_twice(tiny):
    seen: list[bool] = []
    stream(tiny, PAIRS[:1], [SITES[0], SITES[0]], lambda site, x, batch, base: seen.append(base is not None), base=tiny, merge=lambda: None)
    assert len(seen) >= 2 and all(seen)
