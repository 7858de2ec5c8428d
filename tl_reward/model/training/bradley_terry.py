"""Bradley-Terry training of a reward model, by TRL's `RewardTrainer` on the Hugging Face model.

Loss: `-log sigmoid(reward(chosen) - reward(rejected))` (Bradley and Terry 1952; Ouyang et al. 2022). The text is written and tokenised
by `tl_reward.data.encoding`, so a trained model sees at scoring time what it saw in training.
"""

import dataclasses
import json
import shutil
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import torch

from tl_reward import parallel
from tl_reward.data.pairs import PreferencePair
from tl_reward.errors import InputError
from tl_reward.model.training.config import How, TrainingConfig
from tl_reward.model.training.left_out import leave_out, merged
from tl_reward.model.training.preparation import prepare
from tl_reward.model.training.record import RECORD_FILE, TrainingRecord, resume_from, saves_of
from tl_reward.neurons import NeuronSet


def train(
    base: str,
    pairs: Sequence[PreferencePair],
    output: str | Path,
    config: TrainingConfig = TrainingConfig(),
    *,
    without: NeuronSet | None = None,
    how: How = "masked",
    resume: bool = False,
) -> TrainingRecord:
    """Trains a reward model on pairs; `HookedRewardModel.from_pretrained(output)` loads the result.

    Of several processes (`parallel`) each trains on its part of every batch. Where pairs do not fill the last batch of an epoch, it then
    takes the first ones of the epoch again.

    Args:
        base: a language model: a folder, a hub id, or the embedded `embedded.BASE`. Whatever head it has gives way to a linear one of one
            output, drawn from normal(0, 0.02) with the seed.
        output: a new folder. With `resume`, one in which an earlier call was cut short.
        without: neurons that do nothing in any forward pass of the training, so that neither they nor adapters on them get a gradient.
        how: "masked": their weights are saved as they were, and a later pass has to zero them too (`ZeroAblation`). "pruned": their
            weights are zero, and so they are saved; adapters are then merged into their base.

    Raises:
        InputError: `output` exists, `batch_size` is no multiple of the number of processes, there is nothing to resume from,
            every pair is over-long, rows end with every special token, or the model has no such neuron.
    """
    try:
        from tl_reward.model.training.trainer import make_trainer
    except ModuleNotFoundError as error:
        raise InputError(f"training needs {error.name}: pip install 'tl_reward[train]'") from None
    from transformers import set_seed

    output = Path(output)
    if how not in get_args(How):
        raise InputError(f"how must be one of {', '.join(get_args(How))}, got {how!r}")
    if config.batch_size % parallel.count():
        raise InputError(f"batch_size must be a multiple of the number of processes, {parallel.count()}, got {config.batch_size}")
    with parallel.together():  # all look before one writes
        saved = resume_from(output, resume=resume)
    prepared = prepare(base, pairs, config)
    set_seed(config.seed)
    learning_rate = config.learning_rate or (3e-4 if config.method == "lora" else 1e-5)
    config = dataclasses.replace(config, learning_rate=learning_rate)
    trainer = make_trainer(prepared, config, learning_rate, saves_of(output))
    if without:
        leave_out(trainer.model, without, zero=how == "pruned")
    start = time.monotonic()
    result = trainer.train(resume_from_checkpoint=saved)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry] or [result.training_loss]
    record = TrainingRecord(
        base=base,
        pairs=len(prepared.encoded.pairs),
        dropped=prepared.encoded.dropped,
        steps=result.global_step,
        wall_seconds=round(time.monotonic() - start, 1),
        mean_loss=round(sum(losses) / len(losses), 4),
        bf16=prepared.bf16,
        config=config,
        versions={package: version(package) for package in ("torch", "transformers", "trl", "peft")},
        without=len(without or ()),
        how=how if without else None,
    )
    trained = merged(trainer.model, without) if without and how == "pruned" else trainer.model
    parallel.on_first(lambda: _save(trained, prepared.tokenizer, base, output, record))
    parallel.on_first(lambda: shutil.rmtree(saves_of(output)))
    return record


def _save(model: Any, tokenizer: Any, base: str, output: Path, record: TrainingRecord) -> None:
    adapter = record.config.method == "lora" and record.how != "pruned"
    if adapter:
        # The adapter names its base as the user did: a cache folder's path means nothing on another machine.
        model.peft_config["default"].base_model_name_or_path = base
    if record.bf16:
        model = model.to(torch.bfloat16)
    # Embeddings are never trained in an adapter; asking PEFT to find out would look the base up on the hub.
    model.save_pretrained(output, **({"save_embedding_layers": False} if adapter else {}))
    tokenizer.save_pretrained(output)
    # The record is written last: a folder with it is a finished one.
    (output / RECORD_FILE).write_text(json.dumps(dataclasses.asdict(record), indent=2) + "\n")
