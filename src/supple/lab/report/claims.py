"""What the paper claims, as tests on runs: C1 to C7 of arXiv 2508.00212.

"Final accuracy" and "after 10% of tasks" are the windows of :class:`supple.lab.report.measured.Windows`. Methods are
compared seed by seed, each at the best of the settings that were run, chosen on other seeds
(``cross_fit``). A difference of half a point of accuracy is the largest that does not matter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import polars as pl

from supple.lab.report.bootstrap import IntervalKind
from supple.lab.report.evidence import USUAL, Claim, Collector, final, has, pair, usual
from supple.lab.report.measured import Measured
from supple.lab.report.paired import differences
from supple.lab.report.settings import INCREMENTAL, all_trials
from supple.lab.report.style import STYLES
from supple.lab.report.verdicts import Says, Statement

MARGIN = 0.005
"""The largest difference of accuracy that does not matter: half a point."""

VARIANTS = {"large": "permuted_mnist/swr_variants_large", "small": "permuted_mnist/swr_variants_small"}
"""The studies that have the variants of SWR, by setting."""

UNIT_METHODS = ("cbp", "redo")
"""The methods that reinitialize whole units."""

_CHANGES = {"loss": ("change of the loss", "nats"), "mean": ("change of the activations' mean", "")} | {
    "std": ("change of the activations' standard deviation", "")
}


def _beats_units(gathered: Collector, settings: Sequence[str]) -> None:
    """SWR keeps its accuracy and is better than each unit method."""
    for setting in settings:
        trials = gathered.trials(setting, ("swr", *UNIT_METHODS))
        if trials is None:
            continue
        for other in UNIT_METHODS:
            if has(trials, "swr", other):
                d, note = pair(trials, "swr", other)
                words = f"final accuracy, SWR − {STYLES[other].label}"
                gathered.add(setting, Statement(words, d, Says.ABOVE, MARGIN, note=note))
        if has(trials, "swr"):
            change, note = final(trials, usual(trials, "swr"), "change")
            d = np.array(list(change.values()))
            words = "SWR, final accuracy − after 10% of tasks"
            gathered.add(setting, Statement(words, d, Says.NOT_BELOW, MARGIN, note=note))


def small_network(runs: pl.DataFrame, kind: IntervalKind = "student") -> Claim:
    """C1: in a small network SWR maintains plasticity and is better than CBP and ReDo.

    Args:
        runs: from :func:`supple.lab.report.settings.all_trials`.
        kind: of the intervals.

    Returns:
        The claim with its evidence.
    """
    gathered = Collector(runs)
    _beats_units(gathered, ["small"])
    return gathered.claim(
        "C1",
        "In a small network, SWR maintains plasticity and is better than CBP and ReDo.",
        "final accuracy, SWR minus each, above 0; SWR's final accuracy not more than half a point below that after 10% "
        "of tasks",
        kind,
    )


def layer_norm(runs: pl.DataFrame, kind: IntervalKind = "student") -> Claim:
    """C2: with layer normalization SWR maintains plasticity and is better than CBP and ReDo.

    Args:
        runs: from :func:`supple.lab.report.settings.all_trials`.
        kind: of the intervals.

    Returns:
        The claim with its evidence.
    """
    gathered = Collector(runs)
    _beats_units(gathered, ["small_layer_norm", "large_layer_norm"])
    return gathered.claim(
        "C2",
        "With layer normalization, SWR maintains plasticity and is better than CBP and ReDo.",
        "as C1, in the small and in the large network",
        kind,
    )


def large_network(runs: pl.DataFrame, kind: IntervalKind = "student") -> Claim:
    """C3: in a large network without layer normalization weights and units do equally well.

    Args:
        runs: from :func:`supple.lab.report.settings.all_trials`.
        kind: of the intervals.

    Returns:
        The claim with its evidence.
    """
    gathered = Collector(runs)
    for setting in ("large", "large_momentum", "large_adam"):
        trials = gathered.trials(setting, ("swr", *UNIT_METHODS), optional=setting != "large")
        for other in UNIT_METHODS:
            if trials is not None and has(trials, "swr", other):
                d, note = pair(trials, "swr", other)
                words = f"final accuracy, SWR − {STYLES[other].label}"
                gathered.add(setting, Statement(words, d, Says.WITHIN, MARGIN, note=note))
    return gathered.claim(
        "C3",
        "In a large network without layer normalization, reinitializing weights and units does equally well.",
        "final accuracy, SWR minus each, within half a point; with momentum and Adam too where they were run",
        kind,
    )


def base_loses(runs: pl.DataFrame, kind: IntervalKind = "student") -> Claim:
    """C4: plain training loses plasticity without layer normalization.

    Args:
        runs: from :func:`supple.lab.report.settings.all_trials`.
        kind: of the intervals.

    Returns:
        The claim with its evidence.
    """
    gathered = Collector(runs)
    for setting in ("small", "large", "large_momentum", "large_adam"):
        # The runs that the methods are compared in, where there are several step sizes.
        trials = gathered.trials(setting, ("base", "swr", *UNIT_METHODS), optional=True)
        if trials is not None and has(trials, "base"):
            change, note = final(trials, usual(trials, "base"), "change")
            d = np.array(list(change.values()))
            words = "base, final accuracy − after 10% of tasks"
            gathered.add(setting, Statement(words, d, Says.BELOW, note=note))
        elif setting in ("small", "large"):
            gathered.lacks(setting, "base")
    return gathered.claim(
        "C4",
        "Without layer normalization, plain training loses plasticity.",
        "base: final accuracy below that after 10% of tasks; with momentum and Adam too where they were run",
        kind,
    )


def variants() -> list[dict[str, str]]:
    """The eight variants of SWR; the first is the one that the paper finds best.

    Returns:
        For each, its utility, pruning and reinit.
    """
    return [
        {"utility": utility, "pruning": pruning, "reinit": reinit}
        for utility in ("gradient", "magnitude")
        for pruning in ("threshold", "proportional")
        for reinit in ("resample", "mean")
    ]


def best_variant(runs: pl.DataFrame, kind: IntervalKind = "student") -> Claim:
    """C5: gradient utility with resampling is the best SWR variant.

    Args:
        runs: from :func:`supple.lab.report.settings.all_trials`.
        kind: of the intervals.

    Returns:
        The claim with its evidence.
    """
    gathered = Collector(runs)
    for setting in ("large", "small"):
        trials = gathered.trials(
            setting, ("swr",), optional=setting == "small", study=VARIANTS[setting], variety=list(variants()[0])
        )
        if trials is None:
            continue
        found = {}
        for variant in variants():
            words = "/".join(variant.values())
            rows = trials.runs.filter(pl.col("kind") == "swr")
            for name, value in variant.items():
                default = pl.lit(USUAL["swr"][name])
                rows = rows.filter((pl.col(name).fill_null(default) if name in rows.columns else default) == value)
            if not rows.is_empty():
                found[words] = final(trials, rows)
            elif setting == "large":
                gathered.lacks(setting, f"SWR with {words}", VARIANTS[setting])
        best = "gradient/threshold/resample"
        for words, (values, note) in found.items():
            if words != best and best in found:
                d = differences(found[best][0], values)
                gathered.add(setting, Statement(f"final accuracy, SWR {best} − {words}", d, Says.ABOVE, note=note))
    return gathered.claim(
        "C5",
        "Gradient utility with resampling is the best variant of SWR.",
        "final accuracy of gradient utility, threshold pruning and resampling minus that of each of the seven other "
        "variants, above 0, in the large network; in the small one too for those that were run",
        kind,
    )


def gentle(runs: pl.DataFrame, kind: IntervalKind = "student") -> Claim:
    """C6: with layer normalization unit methods disturb the activations and the loss more than SWR.

    Args:
        runs: from :func:`supple.lab.report.settings.all_trials`.
        kind: of the intervals.

    Returns:
        The claim with its evidence.
    """
    gathered = Collector(runs)
    for setting in ("small_layer_norm", "large_layer_norm"):
        trials = gathered.trials(setting, ("swr", *UNIT_METHODS))
        if trials is None:
            continue
        measured = {
            name
            for name in ("swr", *UNIT_METHODS)
            if has(trials, name) and usual(trials, name)["loss"].is_not_null().any()
        }
        for name in sorted({"swr", *UNIT_METHODS} - measured):
            if has(trials, name):
                gathered.lacks(setting, f"what reinitializations of {STYLES[name].label} change, measured")
        for other in UNIT_METHODS:
            for column, (change, unit) in _CHANGES.items():
                if {"swr", other} <= measured:
                    d, note = pair(trials, other, "swr", column)
                    words = f"{change}, {STYLES[other].label} − SWR"
                    gathered.add(setting, Statement(words, d, Says.ABOVE, unit=unit, note=note))
    return gathered.claim(
        "C6",
        "With layer normalization, SWR reinitializes more gently: unit methods disturb activations and loss more.",
        "mean absolute change across a reinitialization, on the batch of its step, of the loss and of the mean and "
        "standard deviation of the activations over units: unit method minus SWR, above 0",
        kind,
    )


def transformer(runs: pl.DataFrame, kind: IntervalKind = "student") -> Claim:
    """C7: in the vision transformer SWR keeps test accuracy at the level of CBP and ReDo, with fewer diverging runs.

    Args:
        runs: from :func:`supple.lab.report.settings.all_trials`.
        kind: of the intervals.

    Returns:
        The claim with its evidence.
    """
    gathered = Collector(runs)
    for setting in INCREMENTAL:
        trials = gathered.trials(setting, ("swr", *UNIT_METHODS))
        for other in UNIT_METHODS:
            if trials is None or not has(trials, "swr", other):
                continue
            label = STYLES[other].label
            lost = [final(trials, usual(trials, name), "diverged")[0] for name in (other, "swr")]
            some = any(any(of_seed.values()) for of_seed in lost)
            # Two accuracies of 0 are equal whatever the methods do.
            both = {seed for seed, gone in lost[0].items() if gone and lost[1].get(seed)}
            d, note = pair(trials, "swr", other, without=both)
            more = f"without {len(both)} of which both diverged" if both else "no run that is compared diverged"
            accuracy = "; ".join(filter(None, (note, more))) if both or not some else note
            words = f"final test accuracy, SWR − {label}"
            # A diverged run of the other method makes the interval wide, but SWR no worse.
            gathered.add(setting, Statement(words, d, Says.NOT_BELOW, MARGIN, note=accuracy, agreeing=True))
            if some:
                words = f"share of diverging runs, {label} − SWR: SWR does not diverge more often"
                gathered.add(setting, Statement(words, differences(*lost), Says.NOT_BELOW, note=note, shares=True))
    return gathered.claim(
        "C7",
        "In the vision transformer, SWR keeps test accuracy at least at the level of CBP and ReDo, with fewer "
        "diverging runs.",
        "final test accuracy, SWR minus each, not more than half a point below 0, without seeds of which both "
        "diverged; SWR does not diverge more often than each, by the exact sign test on seeds of which one of the two "
        "diverged; with regular and with reparameterized layer norm. Where nothing diverged only that and accuracy "
        "were tested, not that SWR diverges less often",
        kind,
    )


CLAIMS: Mapping[str, Callable[[pl.DataFrame, IntervalKind], Claim]] = {
    "C1": small_network,
    "C2": layer_norm,
    "C3": large_network,
    "C4": base_loses,
    "C5": best_variant,
    "C6": gentle,
    "C7": transformer,
}
"""The tests of the claims. Source: Hernandez-Garcia et al., arXiv 2508.00212."""


def check_claims(folders: Iterable[Measured], kind: IntervalKind = "student") -> list[Claim]:
    """Tests all claims on all runs of some folders.

    Args:
        folders: the folders.
        kind: of the intervals: "student", "bca" or "percentile".

    Returns:
        The claims in order.
    """
    runs = all_trials(folders)
    return [test(runs, kind) for test in CLAIMS.values()]
