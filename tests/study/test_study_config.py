"""The config of a reproduction is strict: what it does not know it names, with what is allowed."""

import dataclasses
import tomllib
from pathlib import Path

import pytest

from tl_reward.errors import InputError
from tl_reward.study.config import Source, load_config, located, parse_config

CONFIGS = Path(__file__).resolve().parents[2] / "experiments" / "configs"
TABLE = tomllib.loads((CONFIGS / "local.toml").read_text())


@pytest.mark.parametrize("name", ["study", "local", "gpu", "embedded"])
def test_our_configs_load(name):
    config = load_config(CONFIGS / f"{name}.toml")
    assert config.objectives == ("helpful", "harmless", "mixed") and config.conventions == "ours"


def test_the_helpful_model_is_tested_on_pairs_of_all_lengths():
    config, first = load_config(CONFIGS / "helpful.toml"), load_config(CONFIGS / "local.toml")
    assert config.objectives == ("helpful",) and config.data["helpful"] == first.data["helpful"] and config.bases == first.bases
    assert config.limits.edited_max_length is None and first.limits.edited_max_length is not None


def test_the_study_is_the_papers():
    config = load_config(CONFIGS / "study.toml")
    assert len(config.bases) == 6 and config.seeds == (0, 1, 2)
    assert config.fractions == (*(round(0.02 * i, 2) for i in range(1, 16)), 1.0) and config.set_fractions == (0.05, 0.1, 0.2)
    training = config.training
    assert (training.method, training.epochs, training.batch_size, training.max_length) == ("full", 2.0, 16, 1024)
    assert [source.data_dir for source in config.data["helpful"].train] == ["helpful-base", "helpful-online", "helpful-rejection-sampled"]
    assert set(config.benchmarks) == {"RM-Bench", "RewardBench", "RewardBench 2"}


BAD = {
    "the file has no key 'rnkings'; it may have bases, objectives, .*, conventions; did you mean 'rankings'": {"rnkings": []},
    "the file has no key 'zzz'; it may have bases, .*, conventions$": {"zzz": []},
    "data.helpful has no key 'tran'; it may have train, test; did you mean 'train'": {"data": {"helpful": {"tran": [], "test": []}}},
    "benchmarks.RMB has no key 'splt'; it may have source, .*, limit; did": {"benchmarks": {"RMB": [{"source": "x", "splt": "y"}]}},
    "benchmarks.RMB must be a table, got 3": {"benchmarks": {"RMB": [3]}},
    "training has no key 'lr'; it may have method": {"training": {"lr": 1.0}},
    "training takes no seed: list them under seeds": {"training": {"seed": 1}},
    "training.batch_size must be a whole number, got '8'": {"training": {"batch_size": "8"}},
    "training: batch_size must be at least 1, got 0": {"training": {"batch_size": 0}},
    "training.method must be one of lora, full, got 'qlora'": {"training": {"method": "qlora"}},
    "objectives must be one of helpful, harmless, mixed, got 'honest'": {"objectives": ["honest"]},
    "objectives must name one or more, each once, got mixed, mixed": {"objectives": ["mixed", "mixed"]},
    "seeds must name one or more, each once, got none": {"seeds": []},
    "rankings must be one of mean, .*, random, got 'loudest'": {"rankings": ["loudest"]},
    "conventions must be one of ours, study, got 'theirs'": {"conventions": "theirs"},
    "dtype must be one of float32, bfloat16, got 'float16'": {"dtype": "float16"},
    "fractions: fraction must be in .0, 1., got 1.5": {"fractions": [1.5]},
    "fractions must name each share once, got 0.1, 0.1": {"fractions": [0.1, 0.1]},
    "retrain.fractions: fraction must be in .0, 1., got 2.0": {"retrain": {"fractions": [0, 2]}},
    "limits.edited.RMB must be at least 0, got -1": {"limits": {"edited": {"RMB": -1}}},
    "seeds must be a whole number, got True": {"seeds": [True]},
    "bases.shipped must be true or false, got 1": {"bases": [{"name": "a", "source": "a/b", "shipped": 1}]},
    "draws must be at least 0, got -1": {"draws": -1},
    "limits.rows must be at least 1, got 0": {"limits": {"rows": 0}},
    "limits must be a table, got 3": {"limits": 3},
    "benchmarks.RMB must be a list, got 'x.jsonl'": {"benchmarks": {"RMB": "x.jsonl"}},
    "benchmarks: a name may hold letters": {"benchmarks": {"../RMB": []}},
    "benchmarks: a name may hold .* not at its ends, got 'RMB.'": {"benchmarks": {"RMB.": ["x"]}},
    "benchmarks: a name may hold .* not at its ends, got ' RMB'": {"benchmarks": {" RMB": ["x"]}},
    "bases.name: a name may not be one that Windows keeps for a device, got 'nul.2'": {"bases": [{"name": "nul.2", "source": "a/b"}]},
    "benchmarks: a name may have 80 bytes, got 82": {"benchmarks": {"é" * 41: ["x"]}},
    "names of bases must differ in more than capital letters, got 'Tiny' and 'tiny'": {
        "bases": [{"name": name, "source": "a/b"} for name in ("Tiny", "tiny")]
    },
    "names of benchmarks must differ in more than capital letters": {"benchmarks": {"\ud55c": ["x"], "\u1112\u1161\u11ab": ["x"]}},
    "benchmarks: 'objective test' is what the test pairs": {"benchmarks": {"Objective test": ["x"]}},
    "data must be one of helpful, harmless, got 'honest'": {"data": {"honest": {"train": [], "test": []}}},
    "data.helpful lacks test": {"data": {"helpful": {"train": []}}},
    "data.harmless is missing; objectives are helpful, harmless, mixed": {"data": {"helpful": {"train": [], "test": []}}},
    "bases: model 'smollm' is no folder, no hub id .owner/name., and not embedded": {"bases": [{"name": "a", "source": "smollm"}]},
    "the embedded adapters were trained from": {"bases": [{"name": "a", "source": "owner/model", "shipped": True}]},
    "bases has no key 'sorce'; it may have name, source, shipped": {"bases": [{"name": "a", "sorce": "b"}]},
    "objectives lacks helpful": {"objectives": ["harmless", "mixed"]},
    "retrain.kinds must be one of masked, pruned, got 'frozen'": {"retrain": {"kinds": ["frozen"]}},
    "retrain.ranking must be one of rankings .mean, change., got 'rms'": {"retrain": {"kinds": ["masked"], "ranking": "rms"}},
}


@pytest.mark.parametrize("message", BAD)
def test_bad_configs_are_named_in_one_line(message):
    with pytest.raises(InputError, match=message) as caught:
        parse_config(TABLE | BAD[message])
    assert "\n" not in str(caught.value)


def test_bad_files(tmp_path):
    (tmp_path / "bad.toml").write_text("a = [")
    for name, message in {"none.toml": "No such file", "bad.toml": "not TOML"}.items():
        with pytest.raises(InputError, match=message):
            load_config(tmp_path / name)
    with pytest.raises(InputError, match=r"the file lacks bases, objectives"):
        parse_config({})


def test_a_config_stays_as_it_was_read():
    config = parse_config(TABLE)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.limits.rows = 5  # pyright: ignore[reportAttributeAccessIssue] - that it is refused is the test
    # Shares may be written as whole numbers; sources by their names alone.
    assert parse_config(TABLE | {"fractions": [1]}).fractions == (1.0,)
    assert parse_config(TABLE | {"benchmarks": {"RMB": ["x"]}, "limits": {}}).benchmarks == {"RMB": (Source("x"),)}


def test_data_stands_for_the_folder():
    source = Source("$DATA/rmb/helpful-test.jsonl.gz")
    assert located(source, "/data").source == "/data/rmb/helpful-test.jsonl.gz"
    with pytest.raises(InputError, match="--data"):
        located(source, None)


def test_a_date_is_no_text():
    table = tomllib.loads('rankings = ["mean"]\n[[bases]]\nname = 2020-01-01\nsource = "smollm2-135m-instruct"')
    with pytest.raises(InputError, match="no key takes a date, got 2020-01-01; text stands in quotes"):
        parse_config(table)
