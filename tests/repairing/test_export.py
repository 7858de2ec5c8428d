"""A repaired model on disk: the same rewards as the edited one's, for every kind of MLP, and a card that has the evidence."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.architectures import hf_model
from torch import Tensor
from transformers import AutoModelForSequenceClassification

import tl_reward
from tl_reward.errors import InputError
from tl_reward.measures.agreement import Precision
from tl_reward.measures.scores import Scores
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.model.tiny import byte_tokenizer, tiny_reward_model
from tl_reward.repairing.evidence.battery import Shift
from tl_reward.repairing.evidence.compared import compared
from tl_reward.repairing.evidence.paired import mean_change
from tl_reward.repairing.export import CARD, export
from tl_reward.repairing.result import Repair
from tl_reward.repairing.tuning import RULE
from tl_reward.sites import Site, unit_shape

TOKENS = torch.randint(1, 257, (4, 12), generator=torch.Generator().manual_seed(0))
# A norm before the MLP alone; with biases; beside attention; a norm behind the MLP too, or only there; gate and up in one weight.
KINDS = ("llama", "gpt2", "gpt_neox", "gemma2", "gemma3", "olmo2", "phi3", "qwen3")


def gates_of(model: HookedRewardModel) -> Tensor:
    """Zeroed, halved and doubled neurons in every layer, and many that stay."""
    values = torch.tensor([0.0, 0.5, 2.0, 1.0, 1.0])
    chosen = torch.randint(0, 5, tuple(unit_shape(model.cfg, "mlp_post")), generator=torch.Generator().manual_seed(1))
    return values[chosen]


def repair_of(model: HookedRewardModel, gates: Tensor) -> Repair:
    """One with evidence of made-up rewards: repaired better on the first objective, worse on length."""
    prompts = tuple(f"p{i}" for i in range(12))
    rising, flat = np.linspace(1.0, 2.0, 12), np.zeros(12)
    before, after = (Scores(prompts, chosen, flat, prompts, ("",) * 12) for chosen in (-rising, rising))
    return Repair(
        gates=gates,
        chosen="hurting all, to 0.5, 3 neurons",
        tried=(),
        tolerance=0.01,
        objectives=("helpful", "harmless"),
        splits=(
            {"split": "find", "name": "helpful", "pairs": 30, "prompts": 30, "hash": "0" * 64},
            {"split": "test", "name": "helpful", "pairs": 13, "prompts": 12, "hash": "0" * 64},
        ),
        evidence=(
            compared("repaired", "hurting all", "helpful", before, after, protected=False),
            compared("random", "draw 1", "helpful", before, before, protected=False),
            compared("repaired", "hurting all", "odd | <b>name</b>", before, before, protected=True),
        ),
        shifts={
            "helpful": (
                Shift("chosen is longer", "?", "high", mean_change(rising, flat, prompts)),
                Shift("mean reward", "?", "neither", mean_change(flat, flat, prompts)),
            )
        },
        precision=Precision("float32", "float32"),
        weights=model.origin.weights,
    )


def hooked_rewards(model: HookedRewardModel, gates: Tensor) -> Tensor:
    """Rewards with plain hooks that multiply, and no weight edited."""
    hooks: list[Any] = [(Site(i, "mlp_post").hook_name, lambda value, hook, gate=gate: value * gate) for i, gate in enumerate(gates)]
    return model.run_with_hooks(TOKENS, fwd_hooks=hooks)


@pytest.mark.parametrize("name", KINDS)
def test_the_checkpoint_gives_the_edited_models_rewards(name: str, tmp_path: Path):
    model = HookedRewardModel.from_hf(hf_model(name), byte_tokenizer())
    gates = gates_of(model)
    expected, before = hooked_rewards(model, gates), model(TOKENS)
    assert (expected - before).abs().max() > 0.01  # an edit that does nothing would pass anything
    folder = export(model, repair_of(model, gates), tmp_path / "model")
    theirs = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    one_by_one = torch.cat([theirs(row[None]).logits[:, 0] for row in TOKENS])
    torch.testing.assert_close(one_by_one, expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(tl_reward.load(folder, device="cpu")(TOKENS), expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(model(TOKENS), before, atol=0, rtol=0)  # the model itself stays as it was


@pytest.fixture(scope="module")
def model() -> HookedRewardModel:
    return tiny_reward_model()


def test_the_card_leads_with_what_else_moved(model: HookedRewardModel, tmp_path: Path):
    found = repair_of(model, gates_of(model))
    card = (export(model, found, tmp_path / "model", command="tl-reward repair mine --out runs/x") / CARD).read_text(encoding="utf-8")
    titles = [line for line in card.splitlines() if line.startswith("## ")]
    assert titles == ["## What else moved", "## Evidence", "## How it was chosen", "## How it was made", "## Limits"]
    assert f"with {len(found.neurons)} of its 96 MLP neurons" in card
    moved, evidence = card.split("## Evidence")
    assert "accuracy changed so: helpful +1.000 (+1.000 to +1.000), better;" in " ".join(card.split())
    assert "| helpful | chosen is longer | 1.500 (" in moved and "| worse |" in moved and "Of 2 figures, 1 show no clear change." in moved
    assert "| helpful | this model | 0.000 | 1.000 | +1.000 (+1.000 to +1.000) |" in evidence
    assert "| helpful | random edit: draw 1 | 0.000 | 0.000 |" in evidence
    assert "odd \\| \\<b\\>name\\</b\\> (protected)" in evidence and "<b>" not in card  # names are text, never markup
    assert "tl-reward repair mine --out runs/x" in card and model.origin.weights in card
    assert RULE in card and "Tolerated: 1 points." in card  # as it is
    assert "hurting all, to 0.5, 3 neurons" in card and "| test | helpful | 13 | 12 |" in card


def test_the_card_of_a_model_from_a_folder_names_no_path(model: HookedRewardModel, tmp_path: Path):
    model.save_pretrained(tmp_path / "private" / "mine")
    loaded = HookedRewardModel.from_pretrained(tmp_path / "private" / "mine", device="cpu")
    card = (export(loaded, repair_of(loaded, gates_of(loaded)), tmp_path / "model") / CARD).read_text(encoding="utf-8")
    assert "# mine, repaired" in card and "private" not in card and "base_model:" not in card


def test_what_is_not_exported(model: HookedRewardModel, tmp_path: Path):
    found = repair_of(model, gates_of(model))
    with pytest.raises(InputError, match="no edit was chosen, so that there is nothing to export"):
        export(model, replace(found, chosen=None, gates=torch.ones_like(found.gates)), tmp_path / "model")
    with pytest.raises(InputError, match="is not the model that was repaired: its weights are others"):
        export(tiny_reward_model(seed=1), found, tmp_path / "model")
    assert not (tmp_path / "model").exists()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine").touch()
    with pytest.raises(InputError, match="exists and is not empty"):
        export(model, found, tmp_path / "model")


def test_shared_output_weights_are_refused_before_any_pass(monkeypatch: pytest.MonkeyPatch):
    model = tiny_reward_model()
    model.blocks[1].mlp.W_out = model.blocks[0].mlp.W_out
    monkeypatch.setattr(HookedRewardModel, "forward", None)
    row = {"chosen": "Yes.", "rejected": "No."}
    sets = [
        {name: [{"prompt": f"{name} {part} {i}", **row} for i in range(10)] for name in ("helpful", "harmless")}
        for part in ("find", "tune", "test")
    ]
    with pytest.raises(InputError, match=r"blocks.0.mlp.W_out and blocks.1.mlp.W_out are one weight") as refused:
        tl_reward.repair(model, *sets)
    assert "\n" not in str(refused.value)
