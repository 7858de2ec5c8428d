"""A published family: how its folder is written, and what its modelling code computes from that folder."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from helpers.published import tokenizers
from helpers.published.heads import Head, Read
from helpers.published.trunks import TRUNKS, drawn_trunk, generator, trunk_with

Chat = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Family:
    """One entry of the matrix.

    Attributes:
        name: also the seed of its weights.
        published: names on the hub that have this layout.
        seen: where its definition was seen, or "from memory".
        architecture: the class name in the published config.
        prefix: what the names of the trunk's weights begin with. `also`: a second name that all of them have too.
        config: what the config has besides the trunk's own fields.
        options: what a user has to say to load it, since no file says so.
        names: of the outputs, where the head has several.
        lm_head: the file also holds the language model's head.
        head_file: the head is in a file of its own.
        suffix: what the published code writes behind the chat template's text.
    """

    name: str
    published: str
    seen: str
    architecture: str
    trunk: str
    head: Head
    prefix: str = "model."
    also: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    vocabulary: Literal["bytes", "llama3"] = "bytes"
    lm_head: bool = False
    head_file: str | None = None
    suffix: str = ""
    shards: int = 1
    dtype: torch.dtype = torch.float32

    @property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        return tokenizers.bytes_tokenizer() if self.vocabulary == "bytes" else tokenizers.llama3_tokenizer()

    def text(self, chat: Chat) -> str:
        """What the published code gives to the tokenizer."""
        messages = [{"role": role, "content": content} for role, content in chat]
        return str(self.tokenizer.apply_chat_template(messages, tokenize=False)) + self.suffix

    def tokens(self, chat: Chat) -> list[int]:
        """The template writes the beginning token, so the tokenizer writes none."""
        return self.tokenizer(self.text(chat), add_special_tokens=False)["input_ids"]

    def write(self, folder: Path) -> Path:
        """Makes the folder, as it is published."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(self._config(), indent=2))
        self.tokenizer.save_pretrained(folder)
        trunk = drawn_trunk(folder, self.name)
        weights = {self.prefix + key: value for key, value in trunk.items()}
        if self.also is not None:
            weights |= {self.also + key: value.clone() for key, value in trunk.items()}
        d_model = next(size for key, size in TRUNKS[self.trunk].items() if key in ("hidden_size", "n_embd"))
        if self.lm_head:
            vocabulary = next(value for key, value in trunk.items() if key.split(".")[0] in ("embed_tokens", "wte")).shape[0]
            weights["lm_head.weight"] = torch.randn((vocabulary, d_model), generator=generator(f"{self.name} lm_head")) * 0.3
        head = self.head.drawn(d_model, generator(f"{self.name} head"))
        if self.head_file is not None:
            save_file(head, folder / self.head_file, metadata={"format": "pt"})
        else:
            weights |= head
        stored = {key: value.to(self.dtype) if value.is_floating_point() else value for key, value in weights.items()}
        _save({key: value.contiguous() for key, value in stored.items()}, folder, self.shards)
        return folder

    def _config(self) -> dict[str, Any]:
        bytes_ = {"bos_token_id": 256, "eos_token_id": 257, "pad_token_id": tokenizers.PAD_OF_BYTES, "vocab_size": tokenizers.BYTES}
        llama3 = {
            "bos_token_id": 128000,
            "eos_token_id": 128009,
            "pad_token_id": tokenizers.PAD_OF_LLAMA3,
            "vocab_size": tokenizers.LLAMA3,
        }
        told = {
            "architectures": [self.architecture],
            "torch_dtype": str(self.dtype).removeprefix("torch."),
            "transformers_version": "4.44.0",
        }
        return TRUNKS[self.trunk] | (bytes_ if self.vocabulary == "bytes" else llama3) | told | self.config

    def reward(self, folder: Path, tokens: Sequence[int]) -> float:
        """The default reward of a text, by the published definition."""
        assert self.head.reward is not None
        return float(self.head.reward(self._read(folder, tokens)))

    def outputs(self, folder: Path, tokens: Sequence[int]) -> Tensor:
        """[output]"""
        assert self.head.outputs is not None
        return self.head.outputs(self._read(folder, tokens))

    def per_token(self, folder: Path, tokens: Sequence[int]) -> Tensor:
        """[pos]: the logit of the published probability at each token. It is read at the marked ones."""
        assert self.head.per_token is not None
        return self.head.per_token(self._read(folder, tokens))

    def _read(self, folder: Path, tokens: Sequence[int]) -> Read:
        stored = _stored(folder, self.prefix)
        with torch.no_grad():
            hidden = stored.trunk(input_ids=torch.tensor([[*tokens]])).last_hidden_state[0]
        return Read(stored.weights, stored.config, hidden, [*tokens])


class _Stored(NamedTuple):
    weights: dict[str, Tensor]
    config: dict[str, Any]
    trunk: Any


@cache
def _stored(folder: Path, prefix: str) -> _Stored:
    weights = {}
    for file in sorted(folder.glob("*.safetensors")):
        weights |= {key: value.float() if value.is_floating_point() else value for key, value in load_file(file).items()}
    inside = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
    # Starling's file has the language model too, `model.model.*`: its trunk is `transformer.*`.
    return _Stored(weights, json.loads((folder / "config.json").read_text()), trunk_with(folder, inside))


def _save(weights: dict[str, Tensor], folder: Path, shards: int) -> None:
    if shards == 1:
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        return
    keys = [*weights]
    names = {key: f"model-{i * shards // len(keys) + 1:05}-of-{shards:05}.safetensors" for i, key in enumerate(keys)}
    for file in sorted(set(names.values())):
        save_file({key: weights[key] for key in keys if names[key] == file}, folder / file, metadata={"format": "pt"})
    total = sum(value.nbytes for value in weights.values())
    index = {"metadata": {"total_size": total}, "weight_map": names}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
