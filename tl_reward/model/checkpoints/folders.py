"""A checkpoint's folder: where it is, what its config says, its tokenizer."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypedDict

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled
from transformers import CONFIG_MAPPING, AutoConfig, AutoTokenizer, PretrainedConfig

from tl_reward.arguments import check_argument
from tl_reward.errors import InputError, check_keywords, did_you_mean, first_line, is_out_of_memory
from tl_reward.model import architectures, embedded
from tl_reward.model.origin import MadeFrom, Stamp

PAGE = "see docs/converting.md"


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
        said = " ".join(str(error).split()) or type(error).__name__  # the reason is often in the second line
        said = said.partition("loading state_dict for ")[2].partition(": ")[2] or said  # torch's, whose head says nothing
        said = said if len(said) <= 240 else f"{said[:239]}…"
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
        like = did_you_mean(name, embedded.REWARD_MODELS)
        raise InputError(f"{name}: no such folder here, not embedded ({names}), and {_why_not(error)}{like}") from None


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
    _check_config(folder, name)
    with refused(f"{name}: config.json is not that of a model"):
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


def _check_config(folder: Path, name: str) -> None:
    """Says no to what `AutoConfig` takes for something else, or says in other words than ours."""
    path = folder / "config.json"
    if not path.exists():
        raise InputError(f"{name}: no model found: no config.json there{_instead(folder)}")
    with refused(f"{name}: config.json is not that of a model"):
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise InputError(f"{name}: config.json is not that of a model (it holds {type(found).__name__}, and no object)")
    kind, classes = found.get("model_type"), found.get("architectures")
    if found.get("auto_map") and not (isinstance(kind, str) and kind in CONFIG_MAPPING):
        raise InputError(
            f"{name}: architecture {kind!r:.60} is not supported: it is not one that transformers knows, and the Python in the checkpoint "
            f"(auto_map) never runs here; {PAGE}"
        )
    if isinstance(kind, str) and kind not in CONFIG_MAPPING:  # before transformers says that its own code is wanted
        config: Any = PretrainedConfig()
        config.model_type, config.num_experts = kind, found.get("num_experts") or found.get("num_local_experts")
        architectures.architecture_of(config, name)
    if classes is not None and not (isinstance(classes, list) and all(isinstance(each, str) for each in classes)):
        raise InputError(
            f'{name}: architectures in config.json must be a list, such as ["LlamaForSequenceClassification"], got {classes!r:.60}'
        )


def _instead(folder: Path) -> str:
    """Where a model may be that is not in the folder itself, as the end of a message."""
    inside = sorted(path.parent.name for name in ("config.json", "adapter_config.json") for path in folder.glob(f"*/{name}"))
    if inside:
        return f"; {', '.join(inside[:3])} in it {'has' if len(inside) == 1 else 'have'} one: give that folder"
    gguf = next((path.name for path in sorted(folder.glob("*.gguf"))), None)
    if gguf is not None:
        return f"; {gguf} is GGUF, which is not read: load the checkpoint that it was made from ({PAGE})"
    adapter = next((path.name for path in sorted(folder.glob("adapter_model.*"))), None)
    return f"; {adapter} is an adapter's, and needs its adapter_config.json" if adapter else "; save_pretrained() writes one"


def tokenizer(folder: Path, name: str) -> Any:
    lacks = "" if (folder / "tokenizer.json").exists() else f": no tokenizer.json there; tokenizer.save_pretrained() writes one, {PAGE}"
    with refused(f"{name}: no tokenizer found{lacks}"):
        found = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    if len(found) <= len(set(found.all_special_ids)):  # what transformers makes of a class whose files are not there
        raise InputError(f"{name}: no tokenizer found: it has special tokens alone{lacks}")
    return found
