"""Whatever a function or a command is called with: a result, or one line that refuses it."""

import random
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.attack import tries

from tl_reward.analyses.attribution import attribute, estimate
from tl_reward.analyses.direct_attribution import direct_attribution
from tl_reward.analyses.exact_effects import compare_with_exact, neuron_effects, set_effects
from tl_reward.analyses.pair_patching import aligned_tokens, patch_pairs
from tl_reward.analyses.tension import tension
from tl_reward.cli import main
from tl_reward.cli.entry import COMMANDS
from tl_reward.data.readers import load_pairs
from tl_reward.errors import InputError
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.model.tiny import tiny_reward_model
from tl_reward.neurons import NeuronSet
from tl_reward.running.activations import sample_activations, stream
from tl_reward.running.options import RunOptions
from tl_reward.running.pair_activations import activations
from tl_reward.running.scoring import score, sweep

SHORT = [pair for pair in load_pairs("embedded", split="test") if pair.id.endswith(("001", "002"))]
ONE = NeuronSet([(0, 1)])
HOSTILE: list[Any] = [
    None, True, -1, 0, 3, 10**30, 1.5, float("nan"), float("inf"), "x", "", "a\nb", b"x", [], {}, (), [None], [[]], {"a": None}, object(),
    set(), print, int, ONE, range(3), Path("x"), 1j, iter(()),
]  # fmt: skip


@pytest.fixture(scope="module")
def calls(tiny: HookedRewardModel) -> dict[Callable[..., Any], dict[str, Any]]:
    """Functions, each with arguments that work."""
    from tl_reward import ablate_sets, ablation_curve, collect_examples, compare_gain_with_exact, discover, gain, patch_models, reward_lens
    from tl_reward.sites import Site

    ranking, other = torch.rand(2, 48), tiny_reward_model(seed=1)
    own = {"model": tiny, "pairs": SHORT}
    sample = {"top": 1, "random": 3}
    return {
        score: own,
        sweep: own | {"conditions": [[]]},
        stream: own | {"sites": [Site(0, "mlp_post")], "consumer": lambda site, activation, batch, base: None},
        sample_activations: own | {"site": "mlp_post"},
        activations: own | {"sites": "mlp_post"},
        discover: own,
        attribute: own,
        estimate: own | {"method": "gradient"},
        direct_attribution: own,
        reward_lens: own,
        tension: own,
        ablation_curve: own | {"ranking": ranking, "fractions": [0.1], "draws": 1},
        ablate_sets: own | {"sets": {"one": ONE}, "draws": 1},
        set_effects: own | {"sets": {"one": ONE}},
        neuron_effects: own | {"neurons": ONE},
        compare_with_exact: own | {"estimates": {"a": ranking}} | sample,
        patch_pairs: own | {"kinds": ["mlp_out"]},
        aligned_tokens: {"model": tiny, "pair": SHORT[0]},
        collect_examples: own | {"neurons": ONE},
        gain: own | {"source": other},
        patch_models: own | {"source": other, "ranking": ranking, "fractions": [0.1], "draws": 1},
        compare_gain_with_exact: own | {"source": other, "gains": {"a": ranking}} | sample,
    }


def test_functions(calls: dict[Callable[..., Any], dict[str, Any]]):
    rng, refused, faults = random.Random(0), 0, []
    names = sorted(RunOptions.__annotations__)
    for _ in range(tries(250, 20_000)):
        function, good = rng.choice(list(calls.items()))
        name, value = rng.choice([*good, *names, "seed", "site", "where", "progress", "intervention"]), rng.choice(HOSTILE)
        try:
            function(**good | {name: value})
        except InputError as error:
            refused += 1
            if len(str(error).splitlines()) != 1:
                faults.append((function.__name__, name, value, str(error)))
        except Exception as error:
            faults.append((function.__name__, name, value, repr(error)[:200]))
    assert faults == []
    assert refused > tries(250, 20_000) // 2


def options_of(command: type) -> list[str]:
    """The options of a command, with those of the dataclasses within it, without what reads more than it is told."""
    found = []
    for each in fields(command):
        inner = each.default_factory if isinstance(each.default_factory, type) else None
        if inner is not None and is_dataclass(inner):
            found += options_of(inner)
        else:
            found.append(f"--{each.name.replace('_', '-')}")
    return found


WORDS = [
    "",
    " ",
    "nan",
    "-inf",
    "-1",
    "0",
    "1e999",
    "9" * 40,
    "nosuch",
    "é–…",
    "a\nb",
    "\udcff",
    "../x",
    "0.5",
    "None",
    "[red]",
    "--",
]


def test_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def offline(*args: Any, **kwargs: Any) -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr("datasets.load_dataset", offline)
    monkeypatch.setattr("tl_reward.model.checkpoints.folders.snapshot_download", offline)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    rng, faults = random.Random(0), []
    needs = {
        "ablate": ["--ranking", "empty"],
        "reproduce": ["--config", "empty"],
        "patch-models": ["empty"],
        "effects": ["--neurons", "0.1"],
    }
    commands = [name for name in COMMANDS if name not in ("demo", "train")]  # they need no model, and would work
    for _ in range(tries(32, 3_000)):
        name = rng.choice(commands)
        option = rng.choice(options_of(COMMANDS[name]))
        if rng.random() < 0.2:
            at = rng.randrange(2, len(option))
            option = option[:at] + option[at + 1 :]
        out = [] if name == "serve" else ["--out", "out"]
        given = [
            name,
            *([] if name == "reproduce" else ["empty"]),
            *needs.get(name, []),
            *out,
            option,
            *rng.choices(WORDS, k=rng.choice([0, 1, 1, 2])),
        ]
        try:
            faults.append((given, f"returned {main(given)}"))
        except SystemExit as ended:
            said = capsys.readouterr().err
            if ended.code != 2 or len(said.splitlines()) != 1:
                faults.append((given, ended.code, said[-300:]))
        except BaseException as error:
            faults.append((given, repr(error)[:300]))
    assert faults == []
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]
