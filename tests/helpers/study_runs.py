"""A tiny study: a base model and pairs in a folder, and the config that runs it."""

import json
from pathlib import Path

from tl_reward.data.readers import EMBEDDED_FILE
from tl_reward.model.tiny import byte_tokenizer, tiny_hf_model

OBJECTIVES = ("helpful", "harmless", "mixed")


def make_data(root: Path) -> Path:
    """A base model, and the embedded test pairs as files of a folder that is called as RMB's is."""
    tiny_hf_model().save_pretrained(root / "base")
    byte_tokenizer().save_pretrained(root / "base")
    (root / "rmb").mkdir()
    rows = list(map(json.loads, EMBEDDED_FILE.read_text(encoding="utf-8").splitlines()))
    for objective in ("helpful", "harmless"):
        own = [row for row in rows if (row["objective"], row["split"]) == (objective, "test")]
        (root / "rmb" / f"{objective}-test.jsonl").write_text("\n".join(map(json.dumps, own)))
    return root


def table(data: Path) -> dict:
    pairs = {"train": ["embedded"], "test": ["embedded"]}
    return {
        "bases": [{"name": "tiny", "source": str(data / "base")}],
        "objectives": ["helpful", "harmless", "mixed"],
        "seeds": [0],
        "training": {"batch_size": 4, "max_pairs": 12, "max_length": 2000, "epochs": 2, "learning_rate": 1e-2, "save_every": 1},
        "data": {"helpful": pairs, "harmless": pairs},
        "benchmarks": {"RMB": ["$DATA/rmb/helpful-test.jsonl", "$DATA/rmb/harmless-test.jsonl"]},
        "rankings": ["mean", "random"],
        "fractions": [0.1, 0.2, 1.0],
        "set_fractions": [0.1],
        "patch_fractions": [0.1],
        "draws": 2,
        "limits": {"rows": 3, "discovery": 4},
        "retrain": {"kinds": ["masked", "pruned"], "fractions": [0.0, 0.1], "objectives": ["mixed"], "pairs": 4},
        "dtype": "float32",
    }
