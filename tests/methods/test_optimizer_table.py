"""The table of docs/optimizers.md, of what becomes of what optimizers remember; ``python THIS_FILE`` writes it anew."""

from __future__ import annotations

import copy
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import supple
from supple.methods.optimizer_parts import like, tensors_of
from supple.methods.probe import Probe
from supple.optim import SGDW, AdamW

lion_pytorch: Any = pytest.importorskip("lion_pytorch")
prodigyopt: Any = pytest.importorskip("prodigyopt")
pytorch_optimizer: Any = pytest.importorskip("pytorch_optimizer")
schedulefree: Any = pytest.importorskip("schedulefree")

PAGE = Path(__file__).parents[2] / "docs" / "optimizers.md"
MODES = ("keep", "fresh", "mean")
TORCH = ("SGD", "Adam", "AdamW", "NAdam", "RAdam", "Adamax", "RMSprop", "Adagrad", "Adadelta", "ASGD", "Rprop", "LBFGS")
OTHERS = (
    *("Adan", "SOAP", "Shampoo", "ScalableShampoo", "Ranger", "AdaBelief", "AdamP", "Lamb", "LARS", "MADGRAD", "CAME"),
    *("GaLore", "Kron", "StableAdamW", "ADOPT", "Grams", "APOLLO", "Fira", "Tiger", "SophiaH", "AdaHessian", "SCION"),
    *(
        "DAdaptAdam",
        "DAdaptAdaGrad",
        "Yogi",
        "NovoGrad",
        "SM3",
        "A2Grad",
        "AdEMAMix",
        "LaProp",
        "MARS",
        "RACS",
        "Alice",
    ),
    *("TAM", "FAdam", "PAdam", "QHAdam", "AggMo", "SWATS", "EXAdam", "Amos", "ScheduleFreeAdamW", "Prodigy", "Lion"),
    *("AdaFactor", "AdamC", "Conda", "FTRL", "Gravity", "PID", "Aida", "AdaPNM", "DiffGrad", "AdaMod", "AdaNorm"),
)


def optimizers() -> Iterator[tuple[str, Callable[[Any], torch.optim.Optimizer]]]:
    """Every optimizer of the table: its name, and what makes it."""
    for name in (*TORCH, "Adafactor"):
        settings = {"momentum": 0.9} if name == "SGD" else {}
        yield f"`torch.optim.{name}`", lambda p, n=name, s=settings: getattr(torch.optim, n)(p, lr=1e-3, **s)
    yield "`torch.optim.Muon`", lambda p: torch.optim.Muon([one for one in p if one.ndim == 2], lr=1e-3)
    yield "`supple.optim.SGDW`", lambda p: SGDW(p, lr=1e-3, momentum=0.9)
    yield "`supple.optim.AdamW`", lambda p: AdamW(p, lr=1e-3)
    for name in ("AdamWScheduleFree", "RAdamScheduleFree", "SGDScheduleFree"):
        yield f"`schedulefree.{name}`", lambda p, n=name: getattr(schedulefree, n)(p, lr=1e-3)
    yield "`prodigyopt.Prodigy`", prodigyopt.Prodigy
    yield "`lion_pytorch.Lion`", lambda p: lion_pytorch.Lion(p, lr=1e-4)
    wrapped = pytorch_optimizer
    yield "`pytorch_optimizer.Lookahead` of SGD", lambda p: wrapped.Lookahead(torch.optim.SGD(p, lr=1e-3))
    yield "`pytorch_optimizer.Lookahead` of Adam", lambda p: wrapped.Lookahead(torch.optim.Adam(p, lr=1e-3))
    yield (
        "`pytorch_optimizer.ScheduleFreeWrapper` of SGD",
        lambda p: wrapped.ScheduleFreeWrapper(torch.optim.SGD(p, lr=1e-3)),
    )
    yield "`pytorch_optimizer.TRAC` of Adam", lambda p: wrapped.TRAC(torch.optim.Adam(p, lr=1e-3))
    yield "`pytorch_optimizer.SAM` of SGD", lambda p: wrapped.SAM(p, torch.optim.SGD, lr=1e-3)
    for name in OTHERS:
        if hasattr(pytorch_optimizer, name):
            yield f"`pytorch_optimizer.{name}`", lambda p, n=name: getattr(pytorch_optimizer, n)(p, lr=1e-3)


def network() -> torch.nn.Sequential:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(8, 24, bias=False), torch.nn.ReLU(), torch.nn.Linear(24, 2, bias=False))


def method(model: torch.nn.Module, optimizer: torch.optim.Optimizer, state: str | None) -> supple.SWR:
    settings: Any = {"frequency": 4, "factor": 0.4, "pruning": "proportional", "utility": "random"}
    return supple.SWR(model, optimizer, optimizer_state=state, **settings)


def row(name: str, make: Callable[[Any], torch.optim.Optimizer]) -> str:
    """One line of the table."""
    model = network()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        optimizer = make(list(model.parameters()))
        cells = []
        for state in MODES:
            try:
                memory = method(model, optimizer, state).memory
            except ValueError:
                cells.append("refused")
                continue
            probe = Probe(optimizer, optimizer.param_groups[0], model[0].weight, 1, False)
            copies = any(slot.copies for slot in probe.slots.values())
            aged = state == "fresh" and memory is not None and probe.rule is not None
            cells.append("own age" if aged else "copies follow" if copies else "yes")
        try:
            units = supple.CBP(model, optimizer)
            default = units.settings.get("optimizer_state", "keep")
        except ValueError:
            default = "refused"
    return f"| {name} | {' | '.join(cells)} | {default} |"


def written() -> list[str]:
    return [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]


def test_the_table_is_that_of_the_page_for_torch() -> None:
    cases = [(name, make) for name, make in optimizers() if name.startswith(("`torch.optim.Ada", "`supple"))]
    assert [row(name, make) for name, make in cases] == [
        line for line in written() if line.startswith(("| `torch.optim.Ada", "| `supple"))
    ]


@pytest.mark.slow
def test_the_table_is_up_to_date() -> None:
    assert [row(name, make) for name, make in optimizers()] == written()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "make"), [*optimizers()], ids=[name.strip("`") for name, _ in optimizers()])
@pytest.mark.filterwarnings("ignore")
def test_replaced_entries_have_what_a_new_optimizer_has_or_the_method_is_not_made(name: str, make: Any) -> None:
    model = network()
    optimizer = make(list(model.parameters()))
    if "refused" in row(name, make).split("|")[3]:
        with pytest.raises(ValueError, match="optimizer"):
            method(model, optimizer, "fresh")
        return
    acting = method(model, optimizer, "fresh")
    for one in (optimizer, *vars(optimizer).values()):
        if isinstance(one, torch.optim.Optimizer) and callable(getattr(one, "train", None)):
            one.train()
    weight = model[0].weight

    def step(number: int) -> None:
        optimizer.zero_grad()
        model(torch.randn(16, 8, generator=torch.Generator().manual_seed(number))).square().mean().backward()
        type(optimizer).step(optimizer, *([lambda: torch.zeros(())] if "SAM" in name else []))

    for number in range(3):
        step(number)
        acting.step()
    step(3)
    before = weight.detach().clone()
    states = {path: tensor.clone() for path, tensor in tensors_of(optimizer, weight).items()}
    acting.step()
    changed = weight.detach() != before
    assert 0 < changed.sum() < changed.numel()
    # The reference: an optimizer that was just made, after a step with a gradient of 0.
    fresh = copy.deepcopy(model)
    new = make(list(fresh.parameters()))
    if callable(getattr(new, "train", None)):
        new.train()
    for parameter in fresh.parameters():
        parameter.grad = torch.zeros_like(parameter)
    value = fresh[0].weight.detach().clone()
    type(new).step(new, *([lambda: torch.zeros(())] if "SAM" in name else []))
    wanted = tensors_of(new, fresh[0].weight)
    for path, tensor in tensors_of(optimizer, weight).items():
        state = like(tensor, weight)
        if state is None:
            assert tensor.numel() == 1, path
            continue
        expected = like(wanted[path], value)
        assert expected is not None
        torch.testing.assert_close(state[changed], expected[changed], rtol=1e-4, atol=1e-5)
        assert torch.equal(state[~changed], states[path].view_as(weight)[~changed]), path


if __name__ == "__main__":
    lines = PAGE.read_text().splitlines()
    first = next((k for k, line in enumerate(lines) if line.startswith("| `")), len(lines))
    lines = [line for line in lines if not line.startswith("| `")]
    lines[first:first] = [row(name, make) for name, make in optimizers()]
    PAGE.write_text("\n".join(lines) + "\n")
    sys.exit()
