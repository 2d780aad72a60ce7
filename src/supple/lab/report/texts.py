"""Numbers, names and intervals as people write them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from supple.lab.escaping import short
from supple.lab.report.statistics import Interval
from supple.methods import registry

_WORDS = {
    "fourier": "Fourier features",
    "gelu": "GELU", "silu": "SiLU", "relu": "ReLU", "crelu": "CReLU", "elu": "ELU", "sgd": "SGD", "adamw": "AdamW",
    "adam": "Adam", "mlp": "MLP", "vit": "ViT",
}  # fmt: skip


def words(name: str) -> str:
    """A name in a study as people write it: "leaky_relu" is "leaky ReLU", and "swr_mean" is "SWR mean"."""
    labels = {method.about.name: method.about.label for method in registry.METHODS.values()} | _WORDS
    return short(" ".join(labels.get(part, part) for part in name.replace("-", "_").split("_") if part) or "unnamed")


def setting_words(name: str) -> str:
    """The name of a setting: "optimizer.step_size" is "step size"."""
    return words(name.rpartition(".")[2])


def number(value: Any, place: float | None = None) -> str:
    """A value such as "2048", "1e-6", "0.05" or "gradient"; also labels the tick at some place of an axis."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return short(str(value))
    if value and not 0.01 <= abs(value) < 1e6:
        mantissa, _, exponent = f"{value:e}".partition("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:g}"


def percents(share: float, place: float | None = None) -> str:
    """A share as a tick's label, such as "75%"."""
    return f"{100 * share:.3g}%"


def points(share: float, place: float | None = None) -> str:
    """A difference of shares as a tick's label in points, such as "+2.5"."""
    return minus(f"{100 * share:+.3g}") if share else "0"


def minus(text: str) -> str:
    """A text with proper signs for minus."""
    return text.replace("-", "−")


def rounded(value: float, decimals: int) -> str:
    """A number with so many decimals; a dash where there is none."""
    return f"{value:,.{decimals}f}" if math.isfinite(value) else "–"


def p_text(p: float) -> str:
    """A p-value, such as "0.012" or "< 0.001"; a dash where there is none."""
    return "–" if not math.isfinite(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def level(value: float, share: bool = True, decimals: int = 1) -> str:
    """The value of an outcome, such as "74.2%", or "0.0312" where it is no share."""
    return f"{100 * value:.{decimals}f}%" if share else f"{value:.4g}"


def percent(interval: Interval, signed: bool = False, share: bool = True) -> str:
    """A share in per cent with half of its interval, such as "74.2 ± 0.3", or another outcome as it is.

    "-" stands for an interval that there is not, a dash alone for the mean of nothing, such as the difference of
    methods that have no seed in common.
    """
    if math.isnan(interval.mean):
        return "–"
    sign = "+" if signed else ""
    if not share:
        mean = minus(f"{interval.mean:{sign}.4g}")
        return f"{mean} ± {(interval.high - interval.low) / 2:.2g}" if interval.known else f"{mean} ± -"
    mean = minus(f"{100 * interval.mean:{sign}.1f}")
    return f"{mean} ± {50 * (interval.high - interval.low):.1f}" if interval.known else f"{mean} ± -"


def interval_text(interval: Interval, unit: str = "points") -> str:
    """A difference with the ends of its interval, such as "+2.01 (+1.88 to +2.14)"; shares are in points."""
    if math.isnan(interval.mean):
        return "–"
    scale, digits = (100, "+.2f") if unit == "points" else (1, "+.3g")
    mean, low, high = (f"{scale * part:{digits}}" for part in interval)
    ends = f" ({low} to {high})" if interval.known else ""
    return minus(mean + ends + (f" {unit}" if unit not in ("points", "") else ""))


def gap_text(gap: Interval, other: str = "it", share: bool = True) -> str:
    """How far something is from another, such as "2.1 points above it (95% interval +1.9 to +2.3)"."""
    if math.isnan(gap.mean):
        return f"without a seed in common with {other}"
    size = f"{abs(100 * gap.mean):.1f} points" if share else f"{abs(gap.mean):.3g}"
    text = f"{size} {'above' if gap.mean >= 0 else 'below'} {other}"
    if not gap.known:
        return text
    low, high = (f"{100 * end:+.1f}" if share else f"{end:+.3g}" for end in (gap.low, gap.high))
    ends = minus(f"95% interval {low} to {high}")
    return f"{text} ({ends}{'' if gap.clear else ', which may be chance'})"


def counted(count: Any, what: str) -> str:
    """How many, such as "1 epoch" or "3 epochs"."""
    return f"{count:,} {what}{'s' * (count != 1)}" if isinstance(count, int) else f"{count} {what}s"


def listed(names: Sequence[str]) -> str:
    """Such as "A, B and C"."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def spanned(tasks: range) -> str:
    """Tasks as people count them, from 1, such as "tasks 901–1000"."""
    return f"task {tasks.stop}" if len(tasks) == 1 else f"tasks {tasks.start + 1}–{tasks.stop}"
