"""The recipes of docs/converting.md do what they say: each is run on what it is for, which is refused before, and readable after."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pandas
import pytest
import torch
from safetensors.torch import load_file, save_file

from tl_reward.data.readers import load_pairs
from tl_reward.errors import InputError
from tl_reward.model.reward_model import load
from tl_reward.model.tiny import byte_tokenizer, tiny_hf_model

pytestmark = pytest.mark.filterwarnings("ignore")
PAGE = (Path(__file__).parents[2] / "docs/converting.md").read_text(encoding="utf-8")
PARTS = [part.partition("\n") for part in re.split(r"^###? ", PAGE, flags=re.M)]
RECIPES = {heading: code for heading, _, text in PARTS for code in re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)}
TOKENS = torch.tensor([[5, 6, 7, 8]])
ROW = {"prompt": "Hi", "chosen": "Hello.", "rejected": "Go away."}
OTHER = ROW | {"prompt": "Bye"}


def sound(folder: Path) -> Path:
    tiny_hf_model().save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


def pickled(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def adapter(folder: Path) -> None:
    from peft import LoraConfig, get_peft_model

    for path in folder.iterdir():
        path.unlink()
    model = get_peft_model(tiny_hf_model(), LoraConfig(r=2, task_type="SEQ_CLS", target_modules=["q_proj"], modules_to_save=["score"]))
    model.peft_config["default"].base_model_name_or_path = str(sound(folder.parent / "base"))
    model.save_pretrained(str(folder))


def pickled_adapter(folder: Path) -> None:
    adapter(folder)
    torch.save(load_file(folder / "adapter_model.safetensors"), folder / "adapter_model.bin")
    (folder / "adapter_model.safetensors").unlink()


def of_its_own_class(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "mine", "architectures": ["Mine"], "auto_map": {"AutoConfig": "mine.Config"}}
    (folder / "config.json").write_text(json.dumps(config))
    state = {re.sub(r"^model\.", "backbone.", key): value for key, value in load_file(folder / "model.safetensors").items()}
    state["value_head.weight"] = state.pop("score.weight")
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def without_fast_tokenizer(folder: Path) -> None:
    found = json.loads((folder / "tokenizer.json").read_text())
    (folder / "vocab.json").write_text(json.dumps(found["model"]["vocab"]))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer.json").unlink()
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"tokenizer_class": "GPT2Tokenizer"}))


# What the folder `mine` has to suffer, and where the readable model is then.
MODELS: dict[str, tuple[Callable[[Path], object], str]] = {
    "Pickles": (pickled, "readable"),
    "Pickled adapters": (pickled_adapter, "mine"),
    "Adapters that are not merged": (adapter, "readable"),
    "Other names of weights": (of_its_own_class, "readable"),
    "Tokenizers": (without_fast_tokenizer, "mine"),
}


def written(name: str, *rows: Any) -> Callable[[], object]:
    return lambda: Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def spreadsheet() -> None:
    pytest.importorskip("openpyxl")
    pandas.DataFrame([ROW, OTHER]).to_excel("pairs.xlsx", index=False)


def arrow() -> None:
    datasets.Dataset.from_list([ROW, OTHER]).save_to_disk("saved")
    next(Path("saved").glob("*.arrow")).rename("data.arrow")


def as_python() -> None:
    rows = [
        {side: [{"role": "user", "content": q}, {"role": "assistant", "content": side}] for side in ("chosen", "rejected")} for q in "ab"
    ]
    pandas.DataFrame(rows).to_csv("pairs.csv", index=False)


def shuffled() -> list[dict[str, Any]]:
    return [{"prompt": prompt, "response": f"{number}", "helpfulness": number} for number in (1, 3) for prompt in "ab"]


PICTURE = ROW | {"images": ["x.png"]}
TURNS = {"history": [["Hi", "Hello."]], "instruction": "And?", "chosen": "a", "rejected": "b"}
# What makes the file, its name, and how many pairs come of it.
DATA: dict[str, tuple[Callable[[], object], str, int]] = {
    "Spreadsheets": (spreadsheet, "pairs.xlsx", 2),
    "Tables with other delimiters or encodings": (
        lambda: Path("pairs.csv").write_text("prompt;chosen;rejected\nHi;Hello.;Go away.\n", encoding="utf-16"), "pairs.csv", 1,
    ),
    "Text that is not UTF-8": (
        lambda: Path("pairs.jsonl").write_text('{"prompt": "Hé", "chosen": "a", "rejected": "b"}', encoding="latin-1"), "pairs.jsonl", 1,
    ),
    "Other columns": (written("pairs.jsonl", {"q": "Hi", "a": "x", "b": "y", "winner": "b"}), "pairs.jsonl", 1),
    "Messages that were written as text": (as_python, "pairs.csv", 2),
    "Answers with labels of their own": (
        written("pairs.jsonl", *({"prompt": p, "completion": str(i), "label": i < 2} for i in range(3) for p in "ab")), "pairs.jsonl", 4,
    ),
    "Ratings whose rows are not together": (written("pairs.jsonl", *shuffled()), "pairs.jsonl", 2),
    "Rows with images": (written("pairs.jsonl", PICTURE, OTHER), "pairs.jsonl", 1),
    "Turns in a column of their own": (written("pairs.jsonl", TURNS), "pairs.jsonl", 1),
    "Arrow files and archives": (arrow, "data.arrow", 2),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_model(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    reward = load(sound(tmp_path / "mine"), device="cpu")(TOKENS).item()
    damage, readable = MODELS[name]
    damage(tmp_path / "mine")
    if name not in ("Adapters that are not merged", "Tokenizers"):  # which are read as they are; the second where its class is known
        with pytest.raises(InputError):
            load(tmp_path / "mine", device="cpu")
    exec(RECIPES[name], {})
    found = load(tmp_path / readable, device="cpu")
    assert found(TOKENS).item() == pytest.approx(reward, abs=1e-5)
    assert (tmp_path / readable / "tokenizer.json").exists() or "adapter" in name.lower()


@pytest.mark.parametrize("name", DATA)
def test_data(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    make, file, expected = DATA[name]
    make()
    with pytest.raises(InputError):
        load_pairs(tmp_path / file)
    names: dict[str, Any] = {}
    exec(RECIPES[name], names)
    assert len(names["pairs"]) == expected


def test_every_recipe_is_run():
    assert {*MODELS, *DATA} == {*RECIPES} and len(RECIPES) == PAGE.count("```python\n")
