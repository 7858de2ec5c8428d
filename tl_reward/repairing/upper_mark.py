"""What training on the same pairs would give: LoRA from the model's own body, scored beside a repair as an upper mark for it."""

import importlib.util
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

from tl_reward.data.pairs import PreferencePair
from tl_reward.errors import InputError
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.model.training import TrainingConfig, train
from tl_reward.model.training.record import RECORD_FILE, begun_in
from tl_reward.running.batches.batching import encode_for
from tl_reward.running.options import RunOptions, checked

UPPER_MARK = "LoRA on the same pairs"  # what evidence calls it


def check_can_train() -> None:
    """Raises InputError where the packages of the extra `train` are not installed."""
    for package in ("trl", "peft", "accelerate"):
        if importlib.util.find_spec(package) is None:
            raise InputError(f"training an upper mark needs {package}: pip install 'tl_reward[train]'")


@checked
def train_upper_mark(
    model: HookedRewardModel,
    pairs: Sequence[PreferencePair],
    folder: Path,
    *,
    seed: int = 0,
    progress: str | None = None,
    **options: Unpack[RunOptions],
) -> HookedRewardModel:
    """Trains low-rank adapters and a fresh head on the pairs that a repair was found and tuned on, and gives the trained model.

    The checkpoint is then in `folder`/model, the adapters merged; a training that was cut short goes on from its last save.

    Args:
        pairs: of them, those that the model reads by the options.
        folder: for the training alone; what an earlier one wrote there is replaced.
        progress: the label of a progress bar; None shows none.

    Raises:
        InputError: as `train`, such as for a model of several outputs.
    """
    encoded = encode_for(model, pairs, gradients=True, **options)
    base, training, result = folder / "base", folder / "training", folder / "model"
    for old in (base, result):
        shutil.rmtree(old, ignore_errors=True)
    model.save_pretrained(base)
    reads_chat = model.tokenizer is not None and model.tokenizer.chat_template is not None
    config = TrainingConfig(chat=reads_chat, max_length=max(len(row.ids) for row in encoded.rows), seed=seed)
    train(str(base), encoded.pairs, training, config, resume=begun_in(training).exists(), progress=progress)
    precision = {"dtype": model.cfg.dtype, "device": model.cfg.device}
    HookedRewardModel.from_pretrained(training, readout=model.readout, **precision).save_pretrained(result)
    shutil.copy(training / RECORD_FILE, result / RECORD_FILE)
    for done in (training, base):
        shutil.rmtree(done)
    return HookedRewardModel.from_pretrained(result, readout=model.readout, **precision)
