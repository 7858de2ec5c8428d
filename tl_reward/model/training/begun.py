"""What a training was begun with: one that goes on has to be the same one, or its record would claim what is true of its end alone."""

import dataclasses
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from tl_reward.errors import InputError
from tl_reward.model.origin import hash_of_tensors
from tl_reward.model.training.config import How, TrainingConfig
from tl_reward.model.training.preparation import Prepared
from tl_reward.model.training.record import begun_in, saves_of
from tl_reward.neurons import NeuronSet


def begun_with(prepared: Prepared, config: TrainingConfig, without: NeuronSet | None, how: How) -> dict[str, Any]:
    """All that decides what is trained: hashes of the base's weights with the fresh head, and of the pairs as tokens, in their order; how
    often to save is no part of it."""
    encoded = prepared.encoded
    options = dataclasses.asdict(config)
    del options["save_every"]
    return {
        "base's weights": hash_of_tensors(prepared.model.state_dict().items()),
        "pairs (or how the tokenizer writes them)": _hash([[row.ids for row in encoded.rows], encoded.chosen, encoded.rejected]),
        **options,
        "without": _hash(without.to_json()) if without else None,
        "how": how if without else None,
        "bf16": prepared.bf16,
    }


def begin(output: Path, begun: dict[str, Any]) -> None:
    """Notes what a training is begun with, in the place of one that was cut short before its first save."""
    saves = saves_of(output)
    shutil.rmtree(saves, ignore_errors=True)
    saves.mkdir(parents=True)
    scratch = saves / "begun.part"
    scratch.write_text(json.dumps(begun, indent=1) + "\n", encoding="utf-8")
    os.replace(scratch, begun_in(output))


def check_the_same(output: Path, begun: dict[str, Any]) -> None:
    """Raises InputError where the training of that folder was begun with something else; the message names it."""
    before: dict[str, Any] = json.loads(begun_in(output).read_text(encoding="utf-8"))
    differs = [name for name, value in begun.items() if before.get(name) != value]
    if differs:
        told = [name if len(str(begun[name])) == 64 else f"{name} {before.get(name)}, now {begun[name]}" for name in differs]
        raise InputError(f"{output}: this training was begun with another {'; another '.join(told)}; give the same, or another folder")


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
