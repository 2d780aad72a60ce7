"""On a GPU the methods do what they do on the CPU, and no step waits for the device."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

import supple
from supple.lab.nn import StackedMLP
from supple.lab.population import FastStep
from supple.methods.layer import Chosen, Layer
from supple.optim import SGDW

METHODS: dict[str, Callable[[StackedMLP, torch.optim.Optimizer], supple.Method]] = {
    "L2": lambda n, o: supple.L2(n, l2=[1e-3, 0, 1e-4, 0]),
    "SWR": lambda n, o: supple.SWR(n, o, frequency=[2, 4, 4, 3], factor=[0.1, 0, 0.2, 0.1]),
    "SWR proportional": lambda n, o: supple.SWR(n, o, frequency=5, factor=0.1, pruning="proportional"),
    "SWR average": lambda n, o: supple.SWR(n, o, frequency=5, factor=0.1, decay=0.9, optimizer_state="fresh"),
    "CBP": lambda n, o: supple.CBP(n, o, maturity=3, replacement_rate=[0.02, 0.01, 0, 0.05]),
    "CBP moving": lambda n, o: supple.CBP(n, o, maturity=3, replacement_rate=0.02, decay=0.9, absorb_mean=True),
    "ReDo": lambda n, o: supple.ReDo(n, o, frequency=3, threshold=0.5),
    "ReDo gradient": lambda n, o: supple.ReDo(n, o, frequency=3, threshold=0.5, utility="gradient"),
}


def trained(device: str, name: str, steps: int) -> tuple[StackedMLP, list[int]]:
    network = StackedMLP([0, 0, 1, 1], inputs=20, hidden=16, layer_norm="after").double().to(device)
    optimizer = SGDW(network.parameters(), lr=0.02)
    method = METHODS[name](network, optimizer)
    step = FastStep(network, optimizer)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(steps, 2, 10, 20, dtype=torch.float64, generator=generator).to(device)
    y = torch.randint(0, 10, (steps, 2, 10), generator=generator).to(device)
    for number in range(steps):
        if device == "cuda" and number == steps // 2:
            torch.cuda.set_sync_debug_mode("error")
        step(x[number], y[number], gradients=method.needs().gradients, readers=method.needs().readers)
        method.step()
    if device == "cuda":
        torch.cuda.set_sync_debug_mode("default")
    return network, method.reinitialized.total.tolist()


@pytest.mark.cuda
@pytest.mark.parametrize("name", METHODS)
def test_a_gpu_gives_what_the_cpu_gives_and_never_waits(name: str) -> None:
    try:
        there, count = trained("cuda", name, 40)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    here, expected = trained("cpu", name, 40)
    assert count == expected
    for one, other in zip(there.parameters(), here.parameters(), strict=True):
        torch.testing.assert_close(one.cpu(), other, rtol=1e-6, atol=1e-8)


@pytest.mark.one_in(4)
@pytest.mark.parametrize("name", [name for name in METHODS if name != "L2"])
def test_the_way_of_the_gpu_on_the_cpu(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the number of chosen units is not waited for, all are written, most of them with their old values."""
    valid: list[torch.Tensor | None] = []
    replace = Layer.replace

    def noticed(self: Layer, chosen: Chosen) -> None:
        valid.append(chosen.valid)
        replace(self, chosen)

    monkeypatch.setattr(Layer, "replace", noticed)
    expected, count = trained("cpu", name, 40)
    here = valid.copy()
    valid.clear()
    monkeypatch.setattr("supple.methods.weights._FEW", 2**62)
    monkeypatch.setattr("supple.methods.layer._at_hand", lambda tensor: False)
    found, same = trained("cpu", name, 40)
    assert here == [None] * len(here)
    assert len(valid) == len(here)
    assert all(which is not None for which in valid)
    assert same == count
    for one, other in zip(found.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)
