"""What is printed for a person: one console for all commands, and libraries that keep quiet beside it."""

import logging
import warnings

from rich.console import Console

from tl_reward import parallel

console = Console(markup=False, quiet=not parallel.is_first())  # names and paths may hold brackets


def quiet() -> None:
    """transformers logs every config it reads; its progress bars are about loading weights."""
    from transformers.utils import logging as hf_logging

    warnings.filterwarnings("ignore", category=FutureWarning, module=r"transformers\.")  # about its own insides
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
