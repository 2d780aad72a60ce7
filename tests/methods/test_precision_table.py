"""The table of docs/precision.md, measured. ``python tests/methods/test_precision_table.py`` writes it anew."""

import math
import re
from pathlib import Path

import torch
from torch import nn

import supple
from supple.functional.utility import weight_gradient
from supple.lab.nn import StackedMLP

PAGE = Path(__file__).parents[2] / "docs" / "precision.md"
TYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
START = 0.7
"""A weight between two powers of two, as nearly all are."""


def weights(dtype):
    model = nn.Linear(400, 400, bias=False, dtype=dtype)
    nn.init.constant_(model.weight, START)
    return model, float(model.weight[0, 0].detach())


def decayed(dtype, method_of):
    """The mean change of weights by four steps of a decay of 1e-4, as a share of what it should be."""
    model, start = weights(dtype)
    model.weight.grad = torch.zeros_like(model.weight)
    method = method_of(model)
    for _ in range(4):
        method.step()
    return (float(model.weight.detach().double().mean()) / start - 1) / ((1 - 1e-4) ** 4 - 1)


def perturbed(dtype):
    """The variance of a perturbation, as a share of what it should be."""
    model, start = weights(dtype)
    supple.ShrinkAndPerturb(model, l2=0, variance=1e-6, seed=0).step()
    return float((model.weight.detach().double() - start).square().mean()) / 1e-6


def absorbed(dtype):
    """What biases absorb of units that give a thousandth, as a share of what it should be."""
    stack = StackedMLP(list(range(40_000)), 2, 2, 1, 1).to(dtype)
    names = dict(stack.named_parameters())
    (reading,) = [name for name, p in names.items() if p.shape == (40_000, 1, 2)]
    bias = reading.replace("weight", "bias")
    with torch.no_grad():
        for name, parameter in names.items():
            parameter.fill_({reading: 2.0**-10, bias: START}.get(name, 0.5))
    settings = {"maturity": 0, "replacement_rate": 0.5, "utility": "magnitude"}
    method = supple.CBP(stack, absorb_mean=True, **settings, initial={"*": supple.Normal(0, 1)})
    before = names[bias].detach().double().clone()
    stack(torch.ones(40_000, 1, 2, dtype=dtype))
    method.step()
    return float((names[bias].detach().double() - before).mean()) / (1.5 * 2**-10)


def redrawn(dtype):
    """The standard deviation of redrawn weights, as a share of that of their distribution."""
    model, _ = weights(dtype)
    initial = {"weight": supple.Normal(0, 0.02)}
    settings = {"utility": "random", "pruning": "proportional", "initial": initial, "seed": 0}
    supple.SWR(model, frequency=1, factor=1, **settings).step()
    return float(model.weight.detach().double().std()) / 0.02


def utilities(dtype):
    return str(weight_gradient(torch.ones(1, dtype=dtype), torch.ones(1, dtype=dtype)).dtype).removeprefix("torch.")


ROWS = {
    "`L2` and the shrinking of `ShrinkAndPerturb`, a share of 1e-4": lambda dtype: decayed(
        dtype, lambda model: supple.L2(model, l2=1e-4, seed=0)
    ),
    "`ShrinkAndPerturb`, variance of the noise, 1e-6": perturbed,
    "`CBP(absorb_mean=True)`, a mean of 0.0015 taken over by a bias": absorbed,
    "`SWR`, `CBP` and `ReDo`, standard deviation of redrawn weights, 0.02": redrawn,
    "for comparison: weight decay of 1e-4 a step by `supple.optim.SGDW`": lambda dtype: decayed(
        dtype, lambda model: supple.optim.SGDW(model.parameters(), lr=0.1, weight_decay=1e-4)
    ),
    "for comparison: weight decay of 1e-4 a step by `torch.optim.SGD`": lambda dtype: decayed(
        dtype, lambda model: torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=1e-3)
    ),
    "utilities, means and moving averages are worked out in": utilities,
}


def measured():
    return {name: [row(dtype) for dtype in TYPES] for name, row in ROWS.items()}


def table(rows):
    """The rows in Markdown."""
    head = ["share of what it should be", *(str(dtype).removeprefix("torch.") for dtype in TYPES)]
    lines = [head, ["---"] * len(head)]
    for name, values in rows.items():
        lines.append([name, *(value if isinstance(value, str) else f"{abs(100 * value):.0f}%" for value in values)])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def test_the_page_says_what_is_measured():
    rows = measured()
    for name, values in rows.items():
        if "comparison" in name:
            assert [abs(round(value, 2)) for value in values] == [1, 1, 0, 0], name
        elif not isinstance(values[0], str):
            assert all(math.isclose(value, 1, rel_tol=0.02) for value in values), (name, values)
    lines = [line.strip("|").split("|") for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    said = {name.strip(): [cell.strip() for cell in cells] for name, *cells in lines}
    for name, values in rows.items():
        for cell, value in zip(said[name], values, strict=True):
            # The last digit may differ between machines.
            assert cell == value or abs(int(cell.removesuffix("%")) - abs(100 * value)) < 1.5, name


if __name__ == "__main__":
    PAGE.write_text(re.sub(r"\| share of.*\|\n", lambda _: table(measured()), PAGE.read_text(), flags=re.DOTALL))
