"""Bradley-Terry training of a reward model, by TRL's `RewardTrainer` on the Hugging Face model.

Loss: `-log sigmoid(reward(chosen) - reward(rejected))` (Bradley and Terry 1952; Ouyang et al. 2022). The text is written and tokenised
by `tl_reward.data.encoding`, so a trained model sees at scoring time what it saw in training.
"""

import dataclasses
import json
import os
import shutil
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import torch
from transformers import set_seed

from tl_reward import parallel
from tl_reward.data.readers import GivenPairs, as_pairs
from tl_reward.errors import InputError
from tl_reward.model.training.begun import begin, begun_with, check_the_same
from tl_reward.model.training.config import How, TrainingConfig
from tl_reward.model.training.finite import check_finite
from tl_reward.model.training.left_out import check_neurons, leave_out, merged
from tl_reward.model.training.micro_batches import said_in_one_line
from tl_reward.model.training.preparation import prepare
from tl_reward.model.training.record import RECORD_FILE, TrainingRecord, begun_in, clear_saves, resume_from, saves_of
from tl_reward.neurons import NeuronSet


def train(
    base: str,
    pairs: GivenPairs,
    output: str | Path,
    config: TrainingConfig = TrainingConfig(),
    *,
    without: NeuronSet | None = None,
    how: How = "masked",
    resume: bool = False,
    progress: str | None = None,
) -> TrainingRecord:
    """Trains a reward model on pairs; `HookedRewardModel.from_pretrained(output)` loads the result.

    A batch runs in as many passes as free memory asks for; the step is that of the whole batch, to rounding.
    Of several processes (`parallel`) each trains on its part of every batch. Where pairs do not fill the last batch of an epoch, it then
    takes the first ones of the epoch again.

    Args:
        base: a language model: a folder, a hub id, or the embedded `embedded.BASE`. Whatever head it has gives way to a linear one of one
            output, drawn from normal(0, 0.02) with the seed.
        output: a new folder. With `resume`, one in which an earlier call with the same arguments was cut short (`save_every` may differ).
            Cut short before its first save, it starts anew.
        without: neurons that do nothing in any forward pass of the training, so that neither they nor adapters on them get a gradient.
        how: "masked": their weights are saved as they were, and a later pass has to zero them too (`ZeroAblation`). "pruned": their
            weights are zero, and so they are saved; adapters are then merged into their base.
        progress: the label of a progress bar, in steps; None shows none.

    Raises:
        InputError: `output` exists, `batch_size` is no multiple of the number of processes, there is nothing to resume from, or a
            training of something else; every pair is over-long, rows end with every special token, the model has no such neuron, or the
            training diverged: the loss or a weight is not finite. Nothing is saved then. OutOfMemory, which is one: not even a pass of
            fewer pairs fits. What was saved on the way stays.
    """
    try:
        from tl_reward.model.training.trainer import losses_of, make_trainer
    except ModuleNotFoundError as error:
        raise InputError(f"training needs {error.name}: pip install 'tl_reward[train]'") from None

    output = Path(output)
    if how not in get_args(How):
        raise InputError(f"how must be one of {', '.join(get_args(How))}, got {how!r}")
    if config.batch_size % parallel.count():
        raise InputError(f"batch_size must be a multiple of the number of processes, {parallel.count()}, got {config.batch_size}")
    with parallel.together():  # all look before one writes
        saved = resume_from(output, resume=resume)
    prepared = prepare(base, as_pairs(pairs), config)
    learning_rate = config.learning_rate or (3e-4 if config.method == "lora" else 1e-5)
    config = dataclasses.replace(config, learning_rate=learning_rate)
    if without:
        check_neurons(prepared.model, without)
    begun = begun_with(prepared, config, without, how)
    with parallel.together():
        if begun_in(output).exists() and resume:
            check_the_same(output, begun)
    if saved is None:
        parallel.on_first(lambda: begin(output, begun))
    set_seed(config.seed)
    with said_in_one_line(output, full=config.method == "full"):
        trainer = make_trainer(prepared, config, learning_rate, saves_of(output), progress)
        if without:
            leave_out(trainer.model, without, zero=how == "pruned")
        start = time.monotonic()
        result = trainer.train(resume_from_checkpoint=saved)
    losses = losses_of(trainer.state.log_history)
    check_finite(result.global_step, losses, trainer.model)
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
        most_pairs_at_once=trainer.most_pairs,
    )
    trained = merged(trainer.model, without) if without and how == "pruned" else trainer.model
    parallel.on_first(lambda: _save(trained, prepared.tokenizer, base, output, record))
    parallel.on_first(lambda: clear_saves(output))
    return record


def _save(model: Any, tokenizer: Any, base: str, output: Path, record: TrainingRecord) -> None:
    """Writes all files aside, and then moves them into their place: those that make a folder a model last, and the record, which makes it a
    finished training, after them. Cut short before that, the training goes on from its last checkpoint."""
    scratch = saves_of(output) / "finished"
    shutil.rmtree(scratch, ignore_errors=True)
    adapter = record.config.method == "lora" and record.how != "pruned"
    if adapter:
        # The adapter names its base as the user did: a cache folder's path means nothing on another machine. A folder is named in full: it
        # is to be found from any other one.
        model.peft_config["default"].base_model_name_or_path = str(Path(base).resolve()) if Path(base).is_dir() else base
    if record.bf16:
        model = model.to(torch.bfloat16)
    # Embeddings are never trained in an adapter; asking PEFT to find out would look the base up on the hub.
    model.save_pretrained(scratch, **({"save_embedding_layers": False} if adapter else {}))
    tokenizer.save_pretrained(scratch)
    (scratch / RECORD_FILE).write_text(json.dumps(dataclasses.asdict(record), indent=2) + "\n", encoding="utf-8")
    last = ("config.json", "adapter_config.json", RECORD_FILE)
    for path in sorted(scratch.iterdir(), key=lambda path: last.index(path.name) if path.name in last else -1):
        os.replace(path, output / path.name)
