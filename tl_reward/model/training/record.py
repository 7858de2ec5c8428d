"""What a training leaves on disk: its record beside the weights, and until its end what it can be resumed from."""

import json
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tl_reward.errors import InputError
from tl_reward.model.training.config import How, TrainingConfig

RECORD_FILE = "training.json"


@dataclass(frozen=True)
class TrainingRecord:
    """What was trained on what: stored as `training.json` beside the weights.

    `mean_loss` is over all steps. `wall_seconds` is of the last leg, where a training was resumed. `without` counts the neurons
    that it was trained without, and `how` says in which way. `most_pairs_at_once`: in one pass, of those that a step needed for its batch
    (its share, of several processes); of the last leg, and 0 of earlier versions, which ran a batch in one.
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
    most_pairs_at_once: int = 0


def saves_of(output: Path) -> Path:
    """The folder of the saved trainings, while a training runs. Hugging Face's Trainer calls each of them `checkpoint-N`."""
    return output / "checkpoints"


def begun_in(output: Path) -> Path:
    """The file that says what a training was begun with: there from before its first step to its end."""
    return saves_of(output) / "begun.json"


def last_checkpoint(output: str | Path) -> str | None:
    """The last saved training that was written to its end, from which one that was cut short goes on; None where there is none, or nothing
    says what it was begun with. (Hugging Face writes the file that is read here after the weights and the optimiser's state.)"""
    output = Path(output)
    if not begun_in(output).exists():
        return None
    found = sorted(saves_of(output).glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]), reverse=True)
    for path in found:
        try:
            json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
            return str(path)
        except (OSError, ValueError):
            continue
    return None


def clear_saves(output: Path) -> None:
    """Deletes what a finished training need not go on from; the note that says whose it is goes last."""
    for path in saves_of(output).iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path != begun_in(output):
            path.unlink()
    shutil.rmtree(saves_of(output))


def resume_from(output: Path, *, resume: bool) -> str | None:
    """Checks that a training may write to `output`, and gives the saved training that it goes on from, if any. One that was cut short
    before its first save starts anew, with `resume` and without.

    Raises:
        InputError: `output` exists, or there is nothing to resume from.
    """
    if (output / RECORD_FILE).exists():
        # It was cut short right after its end. Whoever put other things into that folder keeps them.
        if begun_in(output).exists():
            clear_saves(output)
        with suppress(OSError):
            saves_of(output).rmdir()
        raise InputError(f"{output} exists, with a finished training; choose another folder")
    saved = last_checkpoint(output)
    if saved is not None and not resume:
        raise InputError(f"{output} exists; choose another folder, or go on with the training that was cut short there (resume)")
    if output.exists() and not begun_in(output).exists() and not _is_empty(output):
        raise InputError(f"{output} exists, with no checkpoint to resume from; choose another folder")
    if resume and not output.exists():
        raise InputError(f"{output}: no checkpoint to resume from")
    return saved


def _is_empty(output: Path) -> bool:
    """As a training leaves it that is cut short before it noted anything."""
    return output.is_dir() and all(path.name in ("checkpoints", "begun.part") for path in output.rglob("*"))
