"""Entries of a run with made-up numbers, no more of each than the findings look at."""

from collections.abc import Sequence
from typing import Any, cast

from tl_reward.results.sections import Sections


def sections(**entries: dict[str, Any]) -> Sections:
    return cast(Sections, entries)


def est(value: float, half: float = 0.1, n: int = 42) -> Any:
    return {"value": value, "low": value - half, "high": value + half, "n": n}


def scores(accuracy: dict[str, Any], *, model: str = "mixed", dataset: str = "embedded helpful, test", pairs: int = 42, **more: Any) -> Any:
    return {"model": model, "dataset": dataset, "pairs": pairs, "ties": 0, "accuracy": accuracy, "objectives": {}, **more}


def point(
    after: dict[str, Any], drop: dict[str, Any], random: Sequence[float], *, fraction: float = 0.1, neurons: int = 120, **more: Any
) -> Any:
    return {
        "fraction": fraction, "neurons": neurons, "ranked": {"accuracy": after, "objectives": {}}, "relative_drop": drop,
        "random_accuracy": [*random], "relative_drop_by_objective": {}, "random_by_objective": {}, **more,
    }  # fmt: skip


def curve(*points: Any, clean: float = 0.8, both: int | None = 0, **more: Any) -> Any:
    return {
        "model": "mixed", "dataset": "mine", "clean": scores(est(clean)), "points": [*points], "score": "mean", "site": "mlp_gate",
        "tested_pairs_that_found": both, **more,
    }  # fmt: skip


def pull(share: float, low: float, high: float, *, neurons: int = 200, p: float = 0.0002, model: str = "mixed") -> Any:
    conflict = {"neurons": neurons, "share": share, "chance": 0.5, "low": low, "high": high, "p_value": p}
    counts = {"harmless": 30, "helpful": 40}
    return {
        "model": model, "site": "mlp_post", "method": "gradient", "objectives": [*counts], "pairs": counts, "conflict_clear": conflict,
        "quadrants": {"both": [[0, i] for i in range(25)]},
    }  # fmt: skip


def overlap(a: list[list[int]], b: list[list[int]], *, layers: int = 2, width: int = 1000) -> Any:
    shared = len({*map(tuple, a)} & {*map(tuple, b)})
    return {
        "score": "mean", "site": "mlp_gate", "fraction": 0.05, "n_layers": layers, "d_mlp": width, "top": {"a": a, "b": b},
        "pairs": [{"a": "a", "b": "b", "shared": shared}],
    }  # fmt: skip


def agreement(*spearmans: dict[str, Any]) -> Any:
    methods = {
        f"method {i}": {"agreement": {"neurons": 30, "spearman": each}, "agreement_drawn": {"neurons": 12, "spearman": est(0.4, 0.3, 12)}}
        for i, each in enumerate(spearmans)
    }
    exact = [{"name": "1.7", "neurons": [[1, 7]], "margin": est(-0.4)}, {"name": "0.2", "neurons": [[0, 2]], "margin": est(0.3)}]
    about = {"model": "mixed", "dataset": "mine", "pairs": 50, "site": "mlp_post"}
    return about | {"methods": methods, "best": "method 0", "exact": exact}


def effects(**margins: dict[str, Any]) -> Any:
    """The row `together` is of all the other rows' neurons."""
    together = margins.pop("together", None)
    rows = [{"name": name, "neurons": [[0, i]], "margin": margin} for i, (name, margin) in enumerate(margins.items())]
    if together is not None:
        rows.append({"name": "all together", "neurons": [each for row in rows for each in row["neurons"]], "margin": together})
    return {"model": "mixed", "dataset": "mine", "pairs": 42, "kind": "zero", "site": "mlp_post", "effects": rows}


def cell(
    kind: str, layer: int | None, noising: dict[str, Any], denoising: dict[str, Any], *, where: Any = "readout", unit: int | None = None
) -> Any:
    return {"kind": kind, "where": where, "layer": layer, "unit": unit, "noising": noising, "denoising": denoising}


def patches(*cells: Any) -> Any:
    return {"model": "mixed", "dataset": "mine", "pairs": 42, "cells": [*cells]}


def restoring(recovered: dict[str, Any], random: Sequence[float | None], **more: Any) -> Any:
    at = point(
        est(0.8), est(0.0), [0.5], fraction=0.05, neurons=60, recovered=recovered, kept=est(0.9, 0.05), random_recovered=[*random], **more
    )
    return curve(at, source_model="helpful", ranking="gain", lost=20, where="all")


def lens(*accuracies: dict[str, Any], decided: Sequence[int] = (1,)) -> Any:
    return {"model": "mixed", "dataset": "mine", "pairs": len(decided), "accuracy": [*accuracies], "decided_at_depth": [*decided]}
