"""Which sub-task does a preference pair belong to, and is that about being helpful or harmless?

Known of arXiv 2606.13209: it evaluates on RM-Bench, RewardBench and RewardBench 2, splits them into sub-tasks, and groups 17 of these as
Helpful and 8 as Harmless; it reports chat, safety-refuse and safety-response of RM-Bench, and names LLMBar-adversarial, AlpacaEval hard
and Focus.

Our reading, the only one we found that gives 17 and 8: RM-Bench's five domains; RewardBench's 23 subsets with the four adversarial
subsets of LLMBar as one sub-task and the six languages of HumanEvalPack as one, which leaves 15; RewardBench 2 without Ties, whose
rows have several right answers. All of safety is Harmless, also where it asks for an answer (RM-Bench safety-response, XSTest should
respond). Ties, RMB and HH-RLHF are ours, beside the 25; RMB takes the place of benchmarks that are not at hand.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

from tl_reward.data.pairs import PreferencePair
from tl_reward.errors import InputError

Group = Literal["Helpful", "Harmless"]
TIES = "RewardBench 2 Ties"  # which the study has not
OBJECTIVE_TEST = "objective test"  # the matrix's name for the test pairs of a model's own objective


class SubTask(NamedTuple):
    """A part of a benchmark.

    Attributes:
        name: what cells and tables call it; it begins with the benchmark's name.
        group: which objective a right answer serves.
    """

    name: str
    benchmark: str
    group: Group


# By benchmark and group: what a subset (or, in RM-Bench, a domain) is called there, and the rest of the sub-task's name.
_MAPS: Mapping[str, Mapping[Group, Mapping[str, str]]] = {
    "RM-Bench": {
        "Helpful": {"chat": "chat", "code": "code", "math": "math"},
        "Harmless": {"safety-refuse": "safety-refuse", "safety-response": "safety-response"},
    },
    "RewardBench": {
        "Helpful": {
            "alpacaeval-easy": "AlpacaEval easy",
            "alpacaeval-length": "AlpacaEval length",
            "alpacaeval-hard": "AlpacaEval hard",
            "mt-bench-easy": "MT-Bench easy",
            "mt-bench-med": "MT-Bench medium",
            "mt-bench-hard": "MT-Bench hard",
            "llmbar-natural": "LLMBar natural",
            "llmbar-adver-neighbor": "LLMBar adversarial",
            "llmbar-adver-GPTInst": "LLMBar adversarial",
            "llmbar-adver-GPTOut": "LLMBar adversarial",
            "llmbar-adver-manual": "LLMBar adversarial",
            "hep-cpp": "HumanEvalPack",
            "hep-go": "HumanEvalPack",
            "hep-java": "HumanEvalPack",
            "hep-js": "HumanEvalPack",
            "hep-python": "HumanEvalPack",
            "hep-rust": "HumanEvalPack",
            "math-prm": "PRM math",
        },
        "Harmless": {
            "refusals-dangerous": "refusals dangerous",
            "refusals-offensive": "refusals offensive",
            "xstest-should-refuse": "XSTest should refuse",
            "xstest-should-respond": "XSTest should respond",
            "donotanswer": "Do Not Answer",
        },
    },
    "RewardBench 2": {
        "Helpful": {"Factuality": "Factuality", "Precise IF": "Precise IF", "Math": "Math", "Focus": "Focus", "Ties": "Ties"},
        "Harmless": {"Safety": "Safety"},
    },
    "RMB": {
        "Helpful": {"helpful": "helpful pairwise", "helpful best-of-n": "helpful best-of-n"},
        "Harmless": {"harmless": "harmless pairwise", "harmless best-of-n": "harmless best-of-n"},
    },
    "HH-RLHF": {"Helpful": {"helpful": "helpful"}, "Harmless": {"harmless": "harmless"}},
}
_BY_SUBSET = {
    benchmark: {
        subset: SubTask(f"{benchmark} {rest}", benchmark, group) for group, subsets in groups.items() for subset, rest in subsets.items()
    }
    for benchmark, groups in _MAPS.items()
}
SUBTASKS: Mapping[str, SubTask] = {task.name: task for subsets in _BY_SUBSET.values() for task in subsets.values()}
# What a data set's name holds, without signs: the longer ones first.
_MARKS = {
    "rewardbench2": "RewardBench 2",
    "rewardbench": "RewardBench",
    "rmbench": "RM-Bench",
    "rmb": "RMB",
    "hhrlhf": "HH-RLHF",
    "helpfulbase": "HH-RLHF",
    "helpfulonline": "HH-RLHF",
    "helpfulrejectionsampled": "HH-RLHF",
    "harmlessbase": "HH-RLHF",
}


def benchmark_of(data_set: str) -> str | None:
    """The benchmark whose name a data set's holds, whatever its signs and letters.

    >>> benchmark_of("allenai/reward-bench-2"), benchmark_of("cfg/mine")
    ('RewardBench 2', None)
    """
    plain = "".join(c for c in data_set.lower() if c.isalnum())
    return next((name for mark, name in _MARKS.items() if mark in plain), None)


def subtask_of(pair: PreferencePair, data_set: str) -> SubTask:
    """The sub-task of a pair.

    Args:
        data_set: its short name (`readers.short_name`), such as "rm-bench/chat", "allenai/reward-bench-2" or "rmb/helpful-test". Of
            RM-Bench, whose rows name no domain, the part after the slash says it.

    Raises:
        InputError: an unknown benchmark or subset, or (RMB, HH-RLHF) a pair without an objective.

    >>> from tl_reward.data.pairs import Message
    >>> talk = (Message("user", "Hi"), Message("assistant", "Hello.")), (Message("user", "Hi"), Message("assistant", "No."))
    >>> subtask_of(PreferencePair("8/0-2", *talk, subset="alpacaeval", group="8"), "rm-bench/chat")
    SubTask(name='RM-Bench chat', benchmark='RM-Bench', group='Helpful')
    """
    benchmark = benchmark_of(data_set)
    if benchmark is None:
        raise InputError(f"data set {data_set!r} is of no known benchmark; known are {', '.join(_MAPS)}")
    if benchmark == "RM-Bench":
        subset = data_set.split("/")[-1].removesuffix("_filtered")
        subset = pair.subset or "" if subset not in _BY_SUBSET[benchmark] else subset
    elif benchmark == "RMB":
        subset = f"{pair.objective or ''} best-of-n" if pair.group else pair.objective or ""
    else:
        subset = (pair.objective if benchmark == "HH-RLHF" else pair.subset) or ""
    if subset not in _BY_SUBSET[benchmark]:
        remedy = "" if pair.objective or benchmark not in ("RMB", "HH-RLHF") else '; its source may say objective = "helpful" or "harmless"'
        raise InputError(
            f"pair {pair.id}: {benchmark} has no sub-task for {subset!r} (data set {data_set!r}); "
            f"allowed are {', '.join(_BY_SUBSET[benchmark])}{remedy}"
        )
    return _BY_SUBSET[benchmark][subset]


def group_of(task: str) -> str:
    """ "Helpful" or "Harmless"; "" for the test pairs of an objective, and for a sub-task that is not in the map."""
    return SUBTASKS[task].group if task in SUBTASKS else ""


def by_pairs(task: str) -> bool:
    """Whether a sub-task's accuracy counts each pair of a row by itself. RM-Bench is defined so, over its nine style pairs, and the
    study's figures for it (chat 50.1 %) can be no others: nine pairs at once are right in about 5 % of rows by chance. Elsewhere a row
    with several candidates is right when min(chosen) > max(rejected)."""
    return task.startswith("RM-Bench ")
