"""A saved state goes on with the same edits alone: their code, and all that it reads, is compared."""

import collections
import copy
import datetime
import decimal
import functools
import random
import re
import sys
import textwrap
from typing import Any

import numpy as np
import pytest
import torch

from tl_reward.analyses.examples.collect import collect_examples
from tl_reward.analyses.examples.identity import content_hash
from tl_reward.data.readers import load_pairs
from tl_reward.errors import InputError
from tl_reward.interventions.ablations import ZeroAblation
from tl_reward.interventions.from_functions import intervention
from tl_reward.interventions.patches import Patch, Source
from tl_reward.neurons import NeuronSet
from tl_reward.running.scoring import score
from tl_reward.sites import Site

EDIT = """
import math
from dataclasses import dataclass, field
from functools import partial
import torch
from tl_reward.interventions.from_functions import intervention
from tl_reward.sites import Site

SCALE, NAMES = 2.0, frozenset({"one", "two", "three", "four"})

def helper(x, by=1):
    return x * by * SCALE if "one" in NAMES else x

class Kept:
    __slots__ = ("bias",)
    def __init__(self): self.bias = torch.tensor([1.0, 2.0])

@dataclass(frozen=True)
class Mine:
    factor: float = 0.5
    kept: Kept = field(default_factory=Kept)
    per_token = True

    def hooks(self, batch):
        return [("blocks.0.hook_mlp_out", lambda x, hook: self.edit(x))]

    def edit(self, x):
        return helper(x) + self.kept.bias[0] + math.pi

def make(by):
    @intervention(Site(0, "mlp_out"))
    def scaled(x):
        return [helper(each, by) for each in [x]][0]
    return scaled

edits = [Mine(), make(3), partial(helper, by=4), again := lambda x: again]
"""
CHANGES = {
    "a constant of a method": ("+ math.pi", "+ math.e"),
    "a global number": ("SCALE, NAMES = 2.0", "SCALE, NAMES = 3.0"),
    "a global set": ('"four"', '"five"'),
    "the body of a function that is called": ("x * by * SCALE", "x + by * SCALE"),
    "a default": ("by=1", "by=2"),
    "a field": ("factor: float = 0.5", "factor: float = 0.25"),
    "a tensor in a slot": ("[1.0, 2.0]", "[1.0, 3.0]"),
    "what is closed over": ("make(3)", "make(4)"),
    "a bound argument": ("by=4", "by=5"),
    "a place": ('Site(0, "mlp_out")', 'Site(1, "mlp_out")'),
    "a trait": ("per_token = True", "per_token = False"),
}


def edits_of(source: str) -> Any:
    scope = {"__name__": "__main__"}
    exec(compile(textwrap.dedent(source), "edits.py", "exec"), scope)
    return scope["edits"]


def test_the_same_code_is_the_same_wherever_it_stands():
    assert content_hash(edits_of(EDIT)) == content_hash(edits_of(f"# moved\n\n{EDIT}"))


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of(change):
    before, after = CHANGES[change]
    assert EDIT.count(before) == 1
    assert content_hash(edits_of(EDIT)) != content_hash(edits_of(EDIT.replace(before, after)))


def test_a_module_of_the_users_is_its_file(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    found = []
    for body in ("x", "x + 1", "x"):
        (tmp_path / "my_edits.py").write_text(f"def f(x): return {body}")
        sys.modules.pop("my_edits", None)
        found.append(content_hash(edits_of("import my_edits\nedits = lambda x: my_edits.f(x)")))
    assert found[0] == found[2] != found[1]


def test_what_holds_itself_and_what_is_held_twice():
    a: list[Any] = [torch.ones(2)]
    b: list[Any] = [torch.ones(2)]
    a.append(a)
    b.append(b)
    assert content_hash(a) == content_hash(b) != content_hash([torch.ones(2), [torch.ones(2)]])
    one = (1.5, "a")
    assert content_hash([one, one]) == content_hash([one, (1.5, "".join(["a"]))])
    assert content_hash(torch.tensor(1.0)) != content_hash(torch.tensor(1)) != content_hash(torch.tensor([1]))
    wrapped = functools.lru_cache(edits_of("edits = lambda x: x"))
    assert content_hash(wrapped) != content_hash(functools.lru_cache(edits_of("edits = lambda x: x + 1")))


def test_examples_do_not_go_on_with_another_body(tiny, tmp_path):
    pairs, neurons = load_pairs("embedded", split="find", limit=2), NeuronSet([(0, 3)])

    def collect(factor: float) -> None:
        edit = intervention(Site(0, "mlp_out"))(lambda x: x * factor)
        zero = ZeroAblation(NeuronSet([(0, int(factor))]))
        collect_examples(tiny, pairs, neurons, interventions=[edit, zero], saved=tmp_path / "state")

    collect(2.0)
    collect(2.0)
    with pytest.raises(InputError, match=r"saved state of something else \(other interventions\); delete it"):
        collect(2.5)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (np.float32(0.5), np.float32(-3.0)), (np.int64(1), np.int64(2)), (range(3), range(4)), (slice(1), slice(2)),
        (collections.deque([1]), collections.deque([2])), (datetime.date(2024, 1, 1), datetime.date(2024, 1, 2)),
        (decimal.Decimal("1"), decimal.Decimal("2")), (bytearray(b"a"), bytearray(b"b")), (random.Random(1), random.Random(2)),
        (np.random.default_rng(1), np.random.default_rng(2)), (re.compile("a"), re.compile("b")), (1, 1.0), (np.float32(1), 1.0),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_values_that_differ_have_other_hashes(one, other):
    assert content_hash(one) != content_hash(other)
    assert content_hash(one) == content_hash(copy.deepcopy(one))


def test_what_an_edit_only_keeps_at_hand_is_no_part_of_it(tiny):
    pairs = load_pairs("embedded", split="find", limit=2)
    neurons, source = NeuronSet([(0, 3), (1, 4)]), Source(tiny)
    edits = [ZeroAblation(neurons), Patch(source, [Site(1, "resid_post")])]
    before = content_hash(edits)
    neurons.by_layer()
    score(tiny, pairs, interventions=edits)
    assert content_hash(edits) == before
