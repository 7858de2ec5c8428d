"""A checkpoint's folder: where it is, what its config says, its tokenizer."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypedDict

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig

from tl_reward.arguments import check_argument
from tl_reward.errors import InputError, check_keywords, first_line, is_out_of_memory
from tl_reward.model import architectures, embedded
from tl_reward.model.origin import MadeFrom, Stamp


class HubOptions(TypedDict, total=False):
    """How a checkpoint is fetched from the Hugging Face hub.

    revision: a branch, tag or commit of it. A local folder has none. Of an adapter it is the adapter's; its base has revisions of its own.
    token: for private repositories; None is the one of `hf auth login`.
    cache_dir: where downloads are kept, in place of the hub's own folder.
    local_files_only: never asks the hub.
    """

    revision: str | None
    token: str | bool | None
    cache_dir: str | Path | None
    local_files_only: bool


@contextmanager
def refused(complaint: str) -> Iterator[None]:
    """Whatever the code that reads a checkpoint's files raises over their contents, as an InputError of one line.

    The files decide what happens in there, so any error may come out: many kinds of exceptions, and the panics of the Rust libraries.
    """
    try:
        yield
    except InputError:
        raise
    except BaseException as error:
        if (not isinstance(error, Exception) and type(error).__name__ != "PanicException") or is_out_of_memory(error):
            raise
        said = " ".join(str(error).split())[:300] or type(error).__name__  # the reason is often in the second line
        raise InputError(f"{complaint} ({said})") from None


def check_options(hub: HubOptions, name: str, own: tuple[str, ...]) -> None:
    """Says no to unknown options (`own` are known besides the hub's), and to a revision of what is not on the hub."""
    several = [key for key in ("n_devices", "device_map", "max_memory") if key in hub]
    if several:
        raise InputError(
            f"{several[0]} is refused: a model is on one device, and its layers are not spread over several; what fits: device=, in "
            f"dtype=torch.bfloat16, or a smaller model (several cards, each with the whole model, share the pairs: accelerate launch)"
        )
    check_keywords(hub, [*own, *HubOptions.__annotations__], "load")
    if hub.get("revision") is not None and Path(embedded.resolve(name)).exists():
        raise InputError(f"revision is an option of models on the Hugging Face hub; {name} is a folder on this machine")


def name_of(given: Any) -> str:
    """What a model is asked for by, as text. Raises InputError for anything else than a name or a path, and for none."""
    check_argument("name_or_path", given, str | Path)
    if not str(given).strip():
        raise InputError(f"a model is a folder, a hub id, or embedded ({', '.join(embedded.REWARD_MODELS)}); got {str(given)!r}")
    return str(given)


def local_folder(name: str, hub: HubOptions) -> Path:
    folder = Path(embedded.resolve(name))
    if folder.exists():
        if not folder.is_dir():
            raise InputError(f"{name}: a checkpoint is a folder with config.json and safetensors files; this is a file")
        return folder
    patterns = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
    try:
        return Path(snapshot_download(name, allow_patterns=patterns, **hub))
    except Exception as error:  # huggingface_hub raises many kinds for "not there" and "no network"
        names = ", ".join(embedded.REWARD_MODELS)
        raise InputError(f"{name}: no such folder here, not embedded ({names}), and {_why_not(error)}") from None


def _why_not(error: Exception) -> str:
    """Why the Hugging Face hub gave nothing."""
    if isinstance(error, HFValidationError):
        return "no id of the Hugging Face hub (owner/name)"
    if isinstance(error, (LocalEntryNotFoundError, OfflineModeIsEnabled, OSError)) and not isinstance(error, HfHubHTTPError):
        return "the Hugging Face hub could not be reached"
    return f"the Hugging Face hub did not give it ({first_line(error)})"


def made_from(name: str, folder: Path, weights: Sequence[Path], *, also: str = "") -> MadeFrom:
    """What a model called `name` is made from: its folder, and the files of its weights and of its base's."""
    files = [Stamp.of(path.resolve()) for path in weights if path.exists()]
    commit = folder.name if folder.parent.name == "snapshots" else None  # so huggingface_hub lays out its cache
    here = Path(name).exists()
    return MadeFrom(str(Path(name).resolve()) if here else name, None if here else commit, tuple(files), also)


def hf_config(folder: Path, name: str) -> Any:
    """The config of a supported architecture, with sizes that it can have.

    Raises:
        InputError: as `architectures.lens_config`, and for a config that is not there or not readable.
    """
    _check_model_type(folder, name)
    with refused(f"{name}: config.json is not that of a model" if (folder / "config.json").exists() else f"{name}: no model found"):
        # Left out, it would ask on standard input whether to run Python from the folder.
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    architectures.architecture_of(config, name)
    try:
        with refused("config.json says what no model of its kind can be"):
            architectures.lens_config(config)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    if getattr(config, "transformers_weights", None) is not None:
        raise InputError(f"{name}: config.json names a weight file of its own (transformers_weights), which is not supported")
    return config


def _check_model_type(folder: Path, name: str) -> None:
    """Says of an unknown architecture that it is not supported, before transformers says that its own code is wanted. Whatever else is
    wrong with config.json, transformers tells."""
    try:
        said = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return
    if isinstance(said, dict) and isinstance(said.get("model_type"), str):
        config: Any = PretrainedConfig()
        config.model_type = said["model_type"]
        config.num_experts = said.get("num_experts") or said.get("num_local_experts")
        architectures.architecture_of(config, name)


def tokenizer(folder: Path, name: str) -> Any:
    with refused(f"{name}: no tokenizer found"):
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
