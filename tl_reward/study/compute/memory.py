"""How much memory does a cell take at least, how many fit side by side, and what helps where one does not fit?"""

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from tl_reward.errors import InputError
from tl_reward.model import architectures, embedded
from tl_reward.study.compute.cells import Cell, max_length_of
from tl_reward.study.compute.inputs import Inputs

# Python, torch and its kernels on a CPU; the context of a GPU.
PROCESS = 3 * 2**28
# Models that a process keeps for the next cell: two reward models and the base (`work`).
KEPT_MODELS = 3
# Numbers of a token in one layer, where a backward pass or a hook may read them: by `d_model` and by `d_mlp`.
WIDTH = (12, 5)
SPARE = 1.25  # for what allocators lose between blocks


def device_of_cells() -> torch.device:
    """Where models are loaded that no device is given for."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def bytes_of(cell: Cell, inputs: Inputs) -> int | None:
    """What the process of a cell takes at least: a training one pair of the longest at once, with gradients and AdamW's states, any other
    a transcript of the longest. None where the model is not at hand.

    Passes grow with what is free (`model.training.micro_batches`, `running.batches.budget`): this is what there has to be.
    """
    config = shape_of(inputs.base(cell.base).source)
    if config is None:
        return None
    parameters, shape = config
    kept = KEPT_MODELS * parameters * torch.finfo(getattr(torch, inputs.config.dtype)).bits // 8
    token = 4 * (WIDTH[0] * shape["d_model"] + WIDTH[1] * shape["d_mlp"])
    if cell.kind == "compare":
        return PROCESS
    if cell.kind not in ("train", "retrain"):
        length = max_length_of(cell, inputs.config) or 1024
        return int(PROCESS + SPARE * (kept + length * token))
    training = inputs.config.training
    # Float32 weights, gradients, two states, and their cast to bfloat16; of adapters, the frozen weights and about a twentieth as many.
    own = parameters * (18 if training.method == "full" else 5)
    return int(PROCESS + SPARE * (kept + own + 2 * training.max_length * token * shape["n_layers"]))


def jobs_that_fit(cells: Iterable[Cell], inputs: Inputs, jobs: int, free: int) -> tuple[int, Cell | None]:
    """As many of the jobs as memory has room for where each is at the dearest of some cells, at least 1; and that cell, if it made them
    fewer. Cells whose models are not at hand do not count."""
    sizes = {cell: size for cell in cells if (size := bytes_of(cell, inputs)) is not None}
    if not sizes:
        return jobs, None
    dearest = max(sizes, key=sizes.__getitem__)
    fit = max(1, free // sizes[dearest])
    return (fit, dearest) if fit < jobs else (jobs, None)


def what_helps(cell: Cell, inputs: Inputs) -> str:
    """In the words of a config."""
    if cell.kind in ("train", "retrain"):
        lora = ', training.method = "lora"' if inputs.config.training.method == "full" else ""
        return f"a smaller training.max_length{lora} or more free memory would help"
    dtype = ', dtype = "bfloat16"' if inputs.config.dtype == "float32" else ""
    return f"a smaller max_length{dtype} or more free memory would help"


def shape_of(source: str) -> tuple[int, dict[str, Any]] | None:
    """Number of weights, and TransformerLens' names of a model's sizes; None where it is not at hand."""
    folder = embedded.at_hand(source)
    return _shape_of(folder) if folder is not None else None


@lru_cache(maxsize=16)
def _shape_of(folder: str) -> tuple[int, dict[str, Any]] | None:
    try:
        config: Any = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        config.num_labels = 1
        with torch.device("meta"):
            parameters = AutoModelForSequenceClassification.from_config(config).num_parameters()
        return parameters, architectures.lens_config(config)
    except (InputError, OSError, ValueError):
        return None
