"""Compiled networks, recomputed features, copies of the network: what a method does stays the same."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers import batch, network
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import supple
from supple.methods.features import FeatureReader

pytestmark = pytest.mark.usefixtures("compile_anew")

Forward = Callable[[Tensor], Tensor]
METHODS: dict[str, Callable[..., supple.Method]] = {
    "SWR": lambda m, o: supple.SWR(m, o, frequency=2, factor=0.3, optimizer_state="fresh"),
    "CBP": lambda m, o: supple.CBP(m, o, maturity=2, replacement_rate=0.1),
    "CBP of 2024": lambda m, o: supple.CBP(m, o, maturity=2, replacement_rate=0.1, decay=0.9, absorb_mean=True),
    "ReDo": lambda m, o: supple.ReDo(m, o, frequency=3, threshold=0.85),
}
every_method = pytest.mark.parametrize("name", METHODS)
READING = ["CBP", "CBP of 2024", "ReDo"]


def train(
    name: str,
    wrap: Callable[[nn.Module], Forward] = lambda model: model,
    given: Callable[[nn.Module, Any], nn.Module] = lambda model, wrapped: model,
    after_wrapping: bool = False,
    each_step: Callable[[nn.Module, int], None] = lambda model, step: None,
    parts: int = 1,
) -> tuple[list[Tensor], list[int]]:
    """Final parameters, and how much was reinitialized at each step.

    Args:
        name: the method.
        wrap: what is called to compute the network.
        given: what of (model, what is called) the method is made for.
        after_wrapping: whether the method is made after the network was wrapped.
        each_step: what else is done before each step.
        parts: in how many parts a batch is computed.
    """
    model = network().double()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    method = None if after_wrapping else METHODS[name](model, optimizer)
    wrapped = wrap(model)
    method = method or METHODS[name](given(model, wrapped), optimizer)
    counts = []
    for step in range(8):
        each_step(model, step)
        optimizer.zero_grad()
        for x, y in zip(*(part.chunk(parts) for part in batch(step, 24, dtype=torch.float64)), strict=True):
            (nn.functional.cross_entropy(wrapped(x), y) / parts).backward()
        optimizer.step()
        method.step()
        counts.append(int(method.reinitialized.last))
    assert sum(counts) > 0
    return list(model.parameters()), counts


def assert_same(one: tuple[list[Tensor], list[int]], other: tuple[list[Tensor], list[int]], exact: bool) -> None:
    assert one[1] == other[1]
    for a, b in zip(one[0], other[0], strict=True):
        torch.testing.assert_close(a, b, rtol=0 if exact else 1e-9, atol=0 if exact else 1e-12)


def compiled(**how: Any) -> Callable[[nn.Module], Forward]:
    return lambda model: torch.compile(model, **how)


@pytest.mark.one_in(4)
@pytest.mark.parametrize("parts", [1, 2])
@every_method
def test_a_network_compiled_after_the_method_was_made(name: str, parts: int) -> None:
    assert_same(train(name, compiled(backend="aot_eager"), parts=parts), train(name, parts=parts), exact=True)


@pytest.mark.one_in(3)
@every_method
def test_a_method_made_for_the_compiled_network(name: str) -> None:
    run = train(name, compiled(backend="aot_eager"), given=lambda model, wrapped: wrapped, after_wrapping=True)
    assert_same(run, train(name), exact=True)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
@every_method
def test_a_network_compiled_to_machine_code(name: str, mode: str) -> None:
    assert_same(train(name, compiled(mode=mode)), train(name), exact=False)


@pytest.mark.parametrize("name", READING)
def test_a_network_that_ran_compiled_before_hears_what_to_do(name: str) -> None:
    model = network().double()
    fast = torch.compile(model, backend="eager")
    fast(batch(0, 24, dtype=torch.float64)[0]).sum().backward()
    method = METHODS[name](model, torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(RuntimeError, match=r"before its first forward pass.*torch\.compiler\.reset"):  # noqa: PT012
        for step in range(4):
            fast(batch(step, 24, dtype=torch.float64)[0]).sum().backward()
            method.step()
    torch.compiler.reset()
    fast(batch(0, 24, dtype=torch.float64)[0]).sum().backward()
    method.step()


@pytest.mark.one_in(3)
@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("parts", [1, 2])
@every_method
def test_recomputed_features_count_once(name: str, parts: int, reentrant: bool) -> None:
    def recomputing(model: nn.Module) -> Forward:
        return lambda x: checkpoint(model, x.requires_grad_(), use_reentrant=reentrant)

    assert_same(train(name, recomputing, parts=parts), train(name, parts=parts), exact=True)


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_recomputed_batch_has_as_many_examples_as_the_batch(reentrant: bool) -> None:
    model = network().double()
    method = supple.CBP(model, maturity=0, replacement_rate=1.0)
    checkpoint(model, batch(0, 6, dtype=torch.float64)[0].requires_grad_(), use_reentrant=reentrant).sum().backward()
    assert [reader.take_sum()[1] for reader in method.needs().readers] == [6]


@pytest.mark.parametrize("kind", [supple.NaP, supple.Parseval, supple.WeightClipping, supple.Reset])
def test_the_last_layer_of_a_compiled_network_is_that_of_the_network(kind: Any) -> None:
    settings: dict[str, Any] = {} if kind is supple.Reset else {"last_layer": False}
    names = [*kind(torch.compile(network()), **settings).parameters]
    assert names == [*kind(network(), **settings).parameters]
    assert ("2.weight" in names) is (kind is supple.Reset)


@pytest.mark.parametrize("name", READING)
def test_copies_of_the_network_read_nothing(name: str) -> None:
    averages: list[Any] = []

    def average(model: nn.Module, step: int) -> None:
        if not averages:
            averages.extend([torch.optim.swa_utils.AveragedModel(model), copy.deepcopy(model)])
        averages[0].update_parameters(model)
        for one in averages:
            one.train()(1e3 * torch.ones(50, 6, dtype=torch.float64)).sum().backward()

    assert_same(train(name, each_step=average), train(name), exact=True)
    hooks = [*averages[1][2]._forward_pre_hooks.values(), *averages[1][0]._forward_hooks.values()]
    readers = [hook.__self__ for hook in hooks if isinstance(hook.__self__, FeatureReader)]
    assert all(reader.take_sum() == (None, 0) for reader in readers)


def test_closing_ends_the_reading_of_a_compiled_network() -> None:
    model = network().double()
    fast = torch.compile(model, backend="eager")
    method = supple.CBP(model, maturity=0, replacement_rate=1.0)
    fast(batch(0, 24, dtype=torch.float64)[0]).sum().backward()
    method.step()
    (reader,) = method.needs().readers
    method.close()
    fast(batch(1, 24, dtype=torch.float64)[0]).sum().backward()
    assert reader.take_sum() == (None, 0)


class Master(torch.optim.Optimizer):
    """SGD in float32 for parameters of half precision, as mixed-precision trainers do it."""

    def __init__(self, parameters: Any, lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["master"], state["momentum"] = p.float(), torch.zeros_like(p, dtype=torch.float32)
                state["momentum"].mul_(0.9).add_(p.grad.float())
                state["master"].sub_(group["lr"] * state["momentum"])
                p.copy_(state["master"])


def test_half_precision_with_an_optimizer_in_single() -> None:
    """A float32 copy that the optimizer keeps of each weight gets the new value too, or it would undo it."""
    model = network().bfloat16()
    optimizer = Master(model.parameters(), lr=0.05)
    method = supple.SWR(model, optimizer, frequency=2, factor=0.5, optimizer_state="fresh")
    for step in range(4):
        optimizer.zero_grad()
        x, y = batch(step, 24, dtype=torch.float64)
        nn.functional.cross_entropy(model(x.bfloat16()), y).backward()
        optimizer.step()
        before = [p.detach().clone() for p in model.parameters()]
        method.step()
        for p, old in zip(model.parameters(), before, strict=True):
            changed = p != old
            state = optimizer.state[p]
            assert state["master"].dtype == state["momentum"].dtype == torch.float32
            assert torch.equal(state["master"].bfloat16(), p)
            assert not state["momentum"][changed].any()
            assert bool(state["momentum"][~changed].any()) or changed.all()
    assert int(method.reinitialized.total) > 20


OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, fused=True),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.01, fused=True, amsgrad=True),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=torch.tensor(0.01), fused=True),
    "Adagrad": lambda p: torch.optim.Adagrad(p, lr=0.01, fused=True),
}


@pytest.mark.one_in(3)
@pytest.mark.parametrize("way", ["fused", "foreach"])
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_fused_and_foreach_optimizers_do_what_the_plain_one_does(kind: str, way: str) -> None:
    results = []
    for plain in (False, True):
        model = network().double()
        optimizer = OPTIMIZERS[kind](model.parameters())
        for group in optimizer.param_groups:
            group["fused"], group["foreach"] = way == "fused" and not plain, way == "foreach" and not plain
            group["lr"] = float(group["lr"])
        method = supple.SWR(model, optimizer, frequency=2, factor=0.3, optimizer_state="fresh")
        for step in range(6):
            optimizer.zero_grad()
            x, y = batch(step, 24, dtype=torch.float64)
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            method.step()
        results.append((list(model.parameters()), [int(method.reinitialized.total)]))
    assert_same(results[0], results[1], exact=False)


def captured(method_name: str, capture: bool) -> tuple[list[Tensor], int]:
    """Training on a GPU, the step captured in a CUDA graph and replayed, or not."""
    model = network().double().cuda()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, capturable=True)
    kinds: dict[str, Callable[[], supple.Method]] = {
        "SWR": lambda: supple.SWR(model, optimizer, frequency=2, factor=0.3, optimizer_state="fresh"),
        "ReDo": lambda: supple.ReDo(model, optimizer, frequency=3, threshold=0.4, utility="gradient"),
    }
    method = kinds[method_name]()
    x, y = (part.cuda() for part in batch(0, 24, dtype=torch.float64))

    def once() -> None:
        optimizer.zero_grad(set_to_none=False)
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            once()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    if capture:
        with torch.cuda.graph(graph):  # runs nothing yet
            once()
    for step in range(1, 9):
        inputs, labels = batch(step, 24, dtype=torch.float64)
        x.copy_(inputs)
        y.copy_(labels)
        graph.replay() if capture else once()
        method.step()
    return list(model.parameters()), int(method.reinitialized.total)


@pytest.mark.cuda
@pytest.mark.parametrize("name", ["SWR", "ReDo"])
def test_replayed_cuda_graphs(name: str) -> None:
    replayed, count = captured(name, capture=True)
    plain, expected = captured(name, capture=False)
    assert count == expected > 0
    for one, other in zip(replayed, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
