"""A length bias that is put into 20 neurons on purpose is found and repaired."""

import random
from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, LlamaConfig

from tl_reward.data.pairs import Message, PreferencePair
from tl_reward.measures.scores import Scores
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.model.tiny import byte_tokenizer
from tl_reward.repairing.config import RepairConfig
from tl_reward.repairing.repair import repair
from tl_reward.repairing.result import Repair
from tl_reward.running.pair_activations import activations
from tl_reward.running.scoring import score
from tl_reward.sites import Site

LAYERS, NEURONS, PLANTED, COUNT = 4, 256, 20, 320


def sound_model(pairs: list[PreferencePair]) -> HookedRewardModel:
    """A random model whose reward does not go with length on these pairs: its reward direction has no part in what does."""
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=257, hidden_size=64, intermediate_size=NEURONS, num_hidden_layers=LAYERS, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=512, pad_token_id=0, eos_token_id=0, bos_token_id=None, initializer_range=0.12,
    )  # fmt: skip
    config.num_labels = 1
    model = HookedRewardModel.from_hf(AutoModelForSequenceClassification.from_config(config).eval(), byte_tokenizer())
    at_end = Site(LAYERS - 1, "resid_post")
    read = model.ln_final(activations(model, pairs, at_end)[at_end].flatten(0, 1))
    long = torch.from_numpy(lengths_of(pairs)).float()
    goes_with_length = (long - long.mean()) @ (read - read.mean(0))
    goes_with_length /= goes_with_length.norm()
    with torch.no_grad():
        model.W_U[:, 0] -= (model.W_U[:, 0] @ goes_with_length) * goes_with_length
    return model


def pairs_of(count: int, name: str, *, longer: bool) -> list[PreferencePair]:
    """Answers of a few letters and then dots: as many on both sides, or not."""
    generator = random.Random(name)

    def said(letters: int, dots: int) -> str:
        return "".join(generator.choice("abcdefghijklmnopqrstuvwxyz ") for _ in range(letters)) + "." * dots

    found = []
    for i in range(count):
        dots = generator.sample(range(2, 30), 2) if longer else [generator.randrange(2, 30)] * 2
        prompt = Message("user", f"{name} {i} {said(4, 0)}")
        one, other = ((prompt, Message("assistant", f"{opened}{said(7, long)}")) for opened, long in zip("ab", dots, strict=True))
        found.append(PreferencePair(f"{name} {i}", one, other))
    return found


def as_preferred_by(model: HookedRewardModel, pairs: list[PreferencePair]) -> list[PreferencePair]:
    """Without those that are nearly a tie."""
    scores = score(model, pairs)
    least = 0.4 * np.std([scores.chosen, scores.rejected])
    turned = [
        pair if margin > 0 else replace(pair, chosen=pair.rejected, rejected=pair.chosen)
        for pair, margin in zip(pairs, scores.margin, strict=True)
    ]
    return [pair for pair, margin in zip(turned, scores.margin, strict=True) if abs(margin) >= least]


def lengths_of(pairs: list[PreferencePair]) -> np.ndarray:
    return np.array([len(side[-1].content) for pair in pairs for side in (pair.chosen, pair.rejected)])


def length_slope(scores: Scores, pairs: list[PreferencePair]) -> float:
    """Reward, in its standard deviation, that a character more brings."""
    rewards = np.stack([scores.chosen, scores.rejected], 1).ravel()
    return float(np.polyfit(lengths_of(pairs), rewards / rewards.std(), 1)[0])


@dataclass(frozen=True)
class Planted:
    faulty: HookedRewardModel
    neurons: frozenset[tuple[int, int]]
    biased: list[PreferencePair]
    clean: list[PreferencePair]


def planted(strength: float) -> Planted:
    given = [pairs_of(COUNT, name, longer=name == "biased") for name in ("biased", "clean")]
    sound = sound_model(given[0])
    biased, clean = (as_preferred_by(sound, pairs) for pairs in given)
    sites = [Site(layer, "mlp_post") for layer in range(LAYERS)]
    found = activations(sound, biased, sites)
    seen = torch.stack([found[site].flatten(0, 1) for site in sites], 1)  # [transcript, layer, neuron]
    long = torch.from_numpy(lengths_of(biased)).float()
    slope = ((long - long.mean())[:, None, None] * (seen - seen.mean(0))).mean(0) / (long.std() * seen.std(0))
    slope[:-1] = 0  # in the last layer, so that no other neuron acts through the planted ones
    loud = slope.abs().flatten().topk(4 * PLANTED).indices
    chosen = loud[torch.randperm(len(loud), generator=torch.Generator().manual_seed(0))[:PLANTED]]
    faulty = deepcopy(sound)
    direction = sound.reward_direction / sound.reward_direction.norm()
    neurons = frozenset((int(i) // NEURONS, int(i) % NEURONS) for i in chosen)
    with torch.no_grad():
        for layer, neuron in neurons:
            faulty.blocks[layer].mlp.W_out[neuron] += strength * slope[layer, neuron].sign() * direction / seen[:, layer, neuron].std()
    return Planted(faulty, neurons, biased, clean)


def part(pairs: list[PreferencePair], start: float, end: float) -> list[PreferencePair]:
    return pairs[round(start * len(pairs)) : round(end * len(pairs))]


@pytest.fixture(scope="module")
def fault() -> Planted:
    return planted(0.4)


@pytest.fixture(scope="module")
def mended(fault: Planted) -> Repair:
    splits = [{"biased": part(fault.biased, *at), "clean": part(fault.clean, *at)} for at in ((0, 0.45), (0.45, 0.7), (0.7, 1))]
    return repair(fault.faulty, *splits, config=RepairConfig(fractions=(0.02, 0.04), draws=1, learn_steps=20))


def test_the_fault_is_one(fault: Planted):
    before = score(fault.faulty, fault.biased)
    assert before.accuracy().value < 0.6 and length_slope(before, fault.biased) > 0.05


def test_most_planted_neurons_are_edited(fault: Planted, mended: Repair):
    assert len(fault.neurons & set(mended.neurons.coords)) >= 15
    assert len(mended.neurons) <= 0.04 * LAYERS * NEURONS


def test_the_bias_falls_and_clean_pairs_stay_right(fault: Planted, mended: Repair):
    biased, clean = part(fault.biased, 0.7, 1), part(fault.clean, 0.7, 1)
    before, after = (score(fault.faulty, biased, interventions=edits) for edits in ([], [mended.intervention]))
    slopes = [length_slope(each, biased) for each in (before, after)]
    assert abs(slopes[1]) <= 0.3 * abs(slopes[0]), slopes
    kept = [score(fault.faulty, clean, interventions=edits).accuracy().value for edits in ([], [mended.intervention])]
    assert kept[1] >= kept[0] - 0.01
