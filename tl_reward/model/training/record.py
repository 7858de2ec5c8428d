"""What a training leaves on disk: its record beside the weights, and until its end what it can be resumed from."""

import json
from dataclasses import dataclass
from pathlib import Path

from tl_reward.errors import InputError
from tl_reward.model.training.config import How, TrainingConfig

RECORD_FILE = "training.json"


@dataclass(frozen=True)
class TrainingRecord:
    """What was trained on what: stored as `training.json` beside the weights.

    `mean_loss` is over all logged steps. `wall_seconds` is of the last leg, where a training was resumed. `without` counts the neurons
    that it was trained without, and `how` says in which way.
    """

    base: str
    pairs: int
    dropped: int
    steps: int
    wall_seconds: float
    mean_loss: float
    bf16: bool
    config: TrainingConfig
    versions: dict[str, str]
    without: int = 0
    how: How | None = None


def saves_of(output: Path) -> Path:
    """The folder of the saved trainings, while a training runs. Hugging Face's Trainer calls each of them `checkpoint-N`."""
    return output / "checkpoints"


def last_checkpoint(output: str | Path) -> str | None:
    """The last saved training that was written to its end, from which one that was cut short goes on; None where there is none. (Hugging
    Face writes the file that is read here after the weights and the optimiser's state.)"""
    found = sorted(saves_of(Path(output)).glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]), reverse=True)
    for path in found:
        try:
            json.loads((path / "trainer_state.json").read_text())
            return str(path)
        except (OSError, json.JSONDecodeError):
            continue
    return None


def resume_from(output: Path, *, resume: bool) -> str | None:
    """Checks that a training may write to `output`, and gives the saved training that it goes on from, if any.

    Raises:
        InputError: `output` exists, or there is nothing to resume from.
    """
    if (output / RECORD_FILE).exists() or (output.exists() and not resume):
        raise InputError(f"{output} exists; choose another folder, or resume one that was cut short")
    saved = last_checkpoint(output)
    if resume and saved is None:
        raise InputError(f"{output}: no checkpoint to resume from")
    return saved
