"""Which sub-task a pair belongs to."""

import pytest

from tl_reward.data.pairs import Message, PreferencePair, pairs_of_row
from tl_reward.data.styles import style_of
from tl_reward.errors import InputError
from tl_reward.study.benchmarks import SUBTASKS, TIES, by_pairs, group_of, subtask_of

GOOD, BAD = ((Message("user", "Hi"), Message("assistant", text)) for text in ("Hello.", "No."))


def pair(*, subset=None, objective=None, group=None):
    return PreferencePair("1", GOOD, BAD, objective=objective, subset=subset, group=group)


def test_the_study_has_17_helpful_and_8_harmless_sub_tasks():
    groups = [task.group for name, task in SUBTASKS.items() if task.benchmark not in ("RMB", "HH-RLHF") and name != TIES]
    assert (groups.count("Helpful"), groups.count("Harmless")) == (17, 8)
    assert all(name == task.name and name.startswith(task.benchmark) for name, task in SUBTASKS.items())
    assert all(c.isalnum() or c in "-_. " for name in SUBTASKS for c in name)  # they become names of folders


@pytest.mark.parametrize(
    ("made", "data_set", "name"),
    [
        (pair(subset="alpacaeval", group="8"), "rm-bench/chat", "RM-Bench chat"),
        (pair(subset="xstest-should-respond", group="8"), "data/safety-response_filtered-of-RM-Bench", None),
        (pair(subset="x"), "RM-Bench/safety-refuse_filtered", "RM-Bench safety-refuse"),
        (pair(subset="code"), "THU-KEG/RM-Bench", "RM-Bench code"),
        (pair(subset="llmbar-adver-GPTOut"), "allenai/reward-bench", "RewardBench LLMBar adversarial"),
        (pair(subset="hep-rust"), "reward-bench/filtered", "RewardBench HumanEvalPack"),
        (pair(subset="xstest-should-respond"), "reward_bench/filtered", "RewardBench XSTest should respond"),
        (pair(subset="Focus", group="1"), "allenai/reward-bench-2", "RewardBench 2 Focus"),
        (pair(subset="Safety", group="1"), "RewardBench2/test", "RewardBench 2 Safety"),
        (pair(subset="Chat/Discussion", objective="helpful"), "rmb/helpful-test", "RMB helpful pairwise"),
        (pair(subset="S1", objective="harmless", group="1"), "rmb/harmless-bon", "RMB harmless best-of-n"),
        (pair(objective="harmless"), "harmless-base/test", "HH-RLHF harmless"),
        (pair(objective="helpful"), "Anthropic/hh-rlhf", "HH-RLHF helpful"),
    ],
)
def test_pairs_find_their_sub_task(made, data_set, name):
    if name is None:
        with pytest.raises(InputError, match="allowed are chat, code, math, safety-refuse, safety-response"):
            subtask_of(made, data_set)
    else:
        assert subtask_of(made, data_set) == SUBTASKS[name]


def test_what_is_unknown_is_refused_with_what_is_allowed():
    with pytest.raises(InputError, match="no known benchmark; known are RM-Bench, RewardBench, RewardBench 2, RMB, HH-RLHF"):
        subtask_of(pair(subset="chat"), "my/pairs")
    with pytest.raises(InputError, match=r"RewardBench 2 has no sub-task for 'Fun'.*allowed are Factuality.*Safety"):
        subtask_of(pair(subset="Fun"), "reward-bench-2/test")
    with pytest.raises(InputError, match="RMB has no sub-task for ''"):
        subtask_of(pair(), "rmb/test")
    assert group_of("RM-Bench safety-response") == "Harmless" and group_of("objective test") == group_of("<b>") == ""
    assert by_pairs("RM-Bench chat") and not by_pairs("RMB helpful pairwise")


def test_styles_are_those_of_the_row_as_it_is_read():
    row = {"id": 8, "prompt": "Hi", "chosen": ["c0", "c1", "c2"], "rejected": ["r0", "r1", "r2"], "subset": "chat"}
    made = {style_of(each.id): (each.chosen[-1].content, each.rejected[-1].content) for each in pairs_of_row(row, "x")}
    assert made == {"normal": ("c2", "r2"), "hard": ("c1", "r2"), "easy": ("c2", "r1")}  # the last of each style
    with pytest.raises(InputError, match="CHOSEN-REJECTED"):
        style_of("8/a-b")
    with pytest.raises(InputError, match="from 0 to 2"):
        style_of("8")
