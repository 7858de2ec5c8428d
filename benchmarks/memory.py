"""Does a model of a billion parameters fit in 6 GB? Prints the peak memory of a whole process for each analysis, in bfloat16.

    python benchmarks/memory.py

The model has random weights and the shape of Llama 3.2 1B, the pairs are embedded ones, and each analysis runs in a process of its own,
which loads the model from disk. About 3 minutes on 2 cores, and 5 GB of disk while it runs. Linux: memory is the peak resident set.
"""

import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, LlamaConfig

from tl_reward.analyses.ablation_curves import ablation_curve
from tl_reward.analyses.attribution import attribute
from tl_reward.analyses.discovery import discover
from tl_reward.analyses.exact_effects import neuron_effects
from tl_reward.data.readers import load_pairs
from tl_reward.model import embedded
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.neurons import NeuronSet
from tl_reward.running.scoring import score

SHAPE = LlamaConfig(
    vocab_size=128256,
    hidden_size=2048,
    intermediate_size=8192,
    num_hidden_layers=16,
    num_attention_heads=32,
    num_key_value_heads=8,
    max_position_embeddings=8192,
    pad_token_id=2,
)
SHAPE.num_labels = 1
NEURONS = NeuronSet([(3, 1), (8, 5), (15, 7)])
ANALYSES: dict[str, Callable[[Any, Any, Any], Any]] = {
    "score": lambda model, pairs, base: score(model, pairs),
    "discover, beside a base model": lambda model, pairs, base: discover(model, pairs, base=base()),
    "attribute": lambda model, pairs, base: attribute(model, pairs),
    "neuron effects": lambda model, pairs, base: neuron_effects(model, pairs[:4], NEURONS),
    "ablation curve": lambda model, pairs, base: ablation_curve(model, pairs[:4], torch.rand(16, 8192), fractions=(0.1,), draws=2),
}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for seed in (0, 1):
            subprocess.run([sys.executable, __file__, "make", f"{folder}/{seed}", str(seed)], check=True, capture_output=True)
        for name in ANALYSES:
            done = subprocess.run([sys.executable, __file__, "run", folder, name], check=True, capture_output=True, text=True)
            print(f"{name}: {done.stdout.strip()}", flush=True)


def make(folder: str, seed: int) -> None:
    torch.manual_seed(seed)
    AutoModelForSequenceClassification.from_config(SHAPE, dtype=torch.bfloat16).save_pretrained(folder)
    AutoTokenizer.from_pretrained(embedded.base_folder()).save_pretrained(folder)


def run(folder: str, name: str) -> None:
    def load(seed: int) -> HookedRewardModel:
        return HookedRewardModel.from_pretrained(Path(folder) / str(seed), dtype=torch.bfloat16, device="cpu")

    ANALYSES[name](load(0), load_pairs("embedded", split="test", limit=12), lambda: load(1))
    print(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


if __name__ == "__main__":
    if sys.argv[1:2] == ["make"]:
        make(sys.argv[2], int(sys.argv[3]))
    elif sys.argv[1:2] == ["run"]:
        run(sys.argv[2], sys.argv[3])
    else:
        main()
