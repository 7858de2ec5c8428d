"""TRL's `RewardTrainer` as a training is set up with it. Importing this needs the packages of `tl_reward[train]`."""

import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, cast

import torch
from datasets import Dataset
from peft import LoraConfig, TaskType
from transformers import TrainerCallback
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_pt_utils import DistributedLengthGroupedSampler

from tl_reward import parallel
from tl_reward.data.encoding import EncodedPairs
from tl_reward.devices import forget_cached, free_bytes, gib
from tl_reward.errors import OutOfMemory, first_line, is_out_of_memory
from tl_reward.model.training.config import TrainingConfig
from tl_reward.model.training.finite import check_finite
from tl_reward.model.training.micro_batches import (
    lengths_of,
    measured,
    number_of_parts,
    parts_of,
    to_come,
    tokens_that_fit,
)
from tl_reward.model.training.preparation import Prepared
from tl_reward.terminal.progress import Progress


@contextmanager
def without(package: str) -> Iterator[None]:
    """Hides a package that is not imported yet from those who would import it if it is there."""
    hidden = sys.modules.setdefault(package, cast(Any, None)) is None
    try:
        yield
    finally:
        if hidden:
            del sys.modules[package]


# TRL imports wandb where it is installed, and wandb leaves folders in the temporary directory. Nothing here reports to it.
with without("wandb"):
    from trl.trainer import base_trainer
    from trl.trainer.reward_config import RewardConfig
    from trl.trainer.reward_trainer import RewardTrainer


base_trainer.__dict__["is_wandb_available"] = lambda: False  # it asks again when it saves


class PairTrainer(RewardTrainer):
    """Takes pairs in the order of a sampler that is given, and each batch in as many passes as memory asks for. To the Trainer a batch is
    still one step, so that its count, its saves and its order are the same whatever memory there was.

    Attributes:
        tokens: what a pass may hold; None before the first.
        most_pairs: in one pass so far.
    """

    def __init__(self, *args: Any, sampler: DistributedLengthGroupedSampler, **kwargs: Any) -> None:
        self.sampler, self.tokens, self.most_pairs = sampler, cast(int | None, None), 0
        self._share, self._halved = 1.0, False
        super().__init__(*args, callbacks=[InOrder(sampler), Watch()], **kwargs)

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return self.sampler

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        """Of a pass: its mean over pairs, times its share of the batch's pairs."""
        loss = super().compute_loss(model, inputs, num_items_in_batch=num_items_in_batch)
        assert not return_outputs and isinstance(loss, torch.Tensor)  # nothing here evaluates
        return loss * self._share

    def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The loss of a batch, and its gradients. Where memory runs out, once in a training passes become half as long."""
        if self.tokens is None:
            self.tokens = self._tokens_that_fit()
        while True:
            lengths = lengths_of(inputs)
            # Processes exchange figures in every pass: they need the same number of them.
            count = max(parallel.gathered(number_of_parts(lengths.tolist(), self.tokens)))
            try:
                return self._in_parts(count, model, inputs, *args, **kwargs)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                why = first_line(error)
            self._halve(count, lengths, why)  # once the error is gone, with all that it holds
            model.zero_grad()
            forget_cached()

    def _in_parts(self, count: int, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        parts = parts_of(inputs, count) if count > 1 else [inputs]
        losses = []
        for i, part in enumerate(parts):
            pairs = len(part["input_ids"]) // 2
            self._share = 2 * pairs / len(inputs["input_ids"])
            with self.accelerator.no_sync(model) if i < count - 1 else nullcontext():
                losses.append(super().training_step(model, part, *args, **kwargs))
            self.most_pairs = max(self.most_pairs, pairs)
        return torch.stack(losses).sum()

    def _tokens_that_fit(self) -> int:
        """Measured on the longest pair, on the device, before the first step."""
        model, dataset, optimizer = cast(Any, self.model), cast(Any, self.train_dataset), cast(Any, self.optimizer)
        lengths, device = dataset["length"][:], self.args.device
        longest = max(lengths)
        batch = self.data_collator([dataset[lengths.index(longest)]])
        with self.accelerator.autocast():
            takes = measured(model.train(), {name: tensor[:1].to(device) for name, tensor in batch.items()})
        free, later = free_bytes(device), to_come(model, has_states=bool(optimizer.state))
        tokens = tokens_that_fit(takes, free, later)
        if tokens < 2 * longest:
            needs = later + takes.fixed + 2 * longest * takes.per_token
            warnings.warn(f"a training step of one pair takes about {gib(needs)}; {gib(free)} are free on {device}", stacklevel=2)
        return min(parallel.gathered(tokens))

    def _halve(self, count: int, lengths: torch.Tensor, why: str) -> None:
        """Raises OutOfMemory where passes were halved before, hold one pair, or other processes wait for theirs."""
        parts = lengths.sort().values.tensor_split(count)
        most = max(map(len, parts))
        pairs = f"{most} pairs of up to {int(lengths.max())} tokens at once" if most > 1 else f"one pair of {int(lengths.max())} tokens"
        took = f"step {self.state.global_step + 1}, of {pairs} ({why})"
        if self._halved or most == 1 or parallel.count() > 1:
            raise OutOfMemory(took)
        self._halved, self.tokens = True, max(2 * len(part) * int(part[-1]) for part in parts) // 2
        warnings.warn(f"out of memory in training: {took}; it goes on with half as many", stacklevel=2)


class InOrder(TrainerCallback):
    """The order of an epoch follows from the seed and the epoch alone: a training that is resumed has that of one that is not."""

    def __init__(self, sampler: DistributedLengthGroupedSampler) -> None:
        self.sampler = sampler

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.sampler.set_epoch(int((state.epoch or 0) + 1e-6))


class Watch(TrainerCallback):
    """Logs the loss with every save, so that no step's loss is lost where a training goes on; and stops one that diverged, instead of going
    on for hours. All processes log the same loss."""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        control.should_log |= control.should_save

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        check_finite(state.global_step, [logs["loss"]] if logs and "loss" in logs else [])


def losses_of(log: Sequence[Mapping[str, Any]]) -> list[float]:
    """The loss of each step, as it is logged: a mean over the steps since the log before.

    >>> losses_of([{"step": 2, "loss": 0.75}, {"step": 3, "loss": 0.5}, {"step": 3, "train_runtime": 9.0}])
    [0.75, 0.75, 0.5]
    """
    losses, before = [], 0
    for entry in log:
        if "loss" in entry:
            losses += [entry["loss"]] * (entry["step"] - before)
            before = entry["step"]
    return losses


class Told(TrainerCallback):
    """How far a training is, and its last loss: in the place of the Trainer's own bar, and of the figures that it prints elsewhere."""

    def __init__(self, label: str | None) -> None:
        self.label, self.loss = label, ""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.shown = Progress(self.label, state.max_steps, "steps", done=state.global_step).__enter__()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if logs and "loss" in logs:
            self.loss = f"loss {logs['loss']:.3f}"

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.shown.add(1, self.loss)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.shown.__exit__(None, None, None)


def make_trainer(prepared: Prepared, config: TrainingConfig, learning_rate: float, saves: Path, progress: str | None = None) -> PairTrainer:
    """A trainer whose trained weights are float32. It draws the adapters: the seed has to be set."""
    dataset = _dataset(prepared.encoded)
    lengths = dataset["length"][:]
    trainer = PairTrainer(
        model=prepared.model,
        processing_class=prepared.tokenizer,
        train_dataset=dataset,
        sampler=DistributedLengthGroupedSampler(config.batch_size, lengths=lengths, num_replicas=1, rank=0, seed=config.seed),
        peft_config=_adapters(config) if config.method == "lora" else None,
        args=_arguments(config, learning_rate, saves, prepared.bf16),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Told(progress))
    assert trainer.model is not None
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()  # PEFT keeps the head in the base's dtype; bf16 loses small updates
    return trainer


def _adapters(config: TrainingConfig) -> LoraConfig:
    return LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=config.lora_rank,
        lora_alpha=2 * config.lora_rank,
        target_modules="all-linear",
        modules_to_save=["score"],
    )


def _arguments(config: TrainingConfig, learning_rate: float, saves: Path, bf16: bool) -> RewardConfig:
    arguments = RewardConfig(
        output_dir=str(saves),
        per_device_train_batch_size=config.batch_size,
        accelerator_config={"split_batches": True},  # over the processes: batches are those of one process
        num_train_epochs=config.epochs,
        learning_rate=learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=0.05,
        max_length=None,
        bf16=bf16,
        use_cpu=not torch.cuda.is_available(),
        gradient_checkpointing=False,
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        save_strategy="steps",
        save_steps=config.save_every,
        save_total_limit=1,
        logging_steps=5,
        logging_nan_inf_filter=False,  # else a loss that is not finite is logged as the one before
        report_to="none",
        disable_tqdm=True,
        seed=config.seed,
    )
    # Several GPUs are for several processes: the Trainer would make batches as many times as large, and run them in threads.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


def _dataset(encoded: EncodedPairs) -> Dataset:
    sides = {f"{side}_ids": [list(encoded.rows[i].ids) for i in getattr(encoded, side)] for side in ("chosen", "rejected")}
    lengths = [max(len(a), len(b)) for a, b in zip(*sides.values(), strict=True)]
    return Dataset.from_dict(sides | {"length": lengths})
