"""Replayed steps against steps taken one operation at a time.

A CUDA graph is stood in for by :class:`Tape`, which holds to the same rules on a CPU: recording carries nothing out, a
replay makes the recorded operations on the recorded memory with the recorded numbers, and the host sees none of it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

import supple
from supple.lab.nn import StackedMLP
from supple.lab.population import FastStep, GraphedStep, Population
from supple.lab.population.graphs import WARM_UP
from supple.lab.streams import PermutedStream
from supple.optim import SGDW, AdamW

Both = tuple[Tensor, Tensor]
METHODS: dict[str, Callable[[StackedMLP, torch.optim.Optimizer], supple.Method | supple.Chain | None]] = {
    "base": lambda n, o: None,
    "S&P": lambda n, o: supple.ShrinkAndPerturb(n, variance=1e-6),
    "SWR": lambda n, o: supple.SWR(n, o, frequency=17, factor=0.1, optimizer_state="fresh"),
    "CBP": lambda n, o: supple.CBP(n, o, maturity=5, replacement_rate=0.02),
    "ReDo": lambda n, o: supple.ReDo(n, o, frequency=8, threshold=0.5),
    "chain": lambda n, o: supple.chain(supple.L2(n, l2=1e-4), supple.SWR(n, o, frequency=19, factor=0.1)),
}
OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "SGDW": lambda p: SGDW(p, lr=0.05),
    "SGDW with settings a replica": lambda p: SGDW(p, lr=[0.05, 0.02, 0.05, 0.02], weight_decay=[0, 1e-3, 0, 1e-3]),
    "momentum": lambda p: SGDW(p, lr=0.01, momentum=0.9, weight_decay=1e-4),
}


digits = cache(supple.lab.data.mnist10k)
aten = torch.ops.aten
HOST = {
    aten._local_scalar_dense,
    aten.nonzero,
    aten.masked_select,
    aten._unique2,
    aten.equal,
    aten.lift_fresh,
    aten.lift_fresh_copy,
}
"""What reads a tensor on the host, or makes one of values of the host."""
INDEXING = {aten.index, aten.index_put, aten.index_put_}


def place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


class Tape(TorchDispatchMode):
    """Writes down operations, takes back what they do to memory from outside, and does them again when replayed."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[tuple[Any, Any, Any, list[Tensor]]] = []
        self._inside: set[int] = set()
        self._before: dict[int, tuple[Tensor, Tensor]] = {}
        self.replays = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        packet = function.overloadpacket
        leaves = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        assert packet not in HOST, f"{function} needs the host"
        assert packet not in INDEXING or all(leaf.dtype != torch.bool for leaf in leaves[1:]), "indexing by a mask"
        assert not (packet is aten._to_copy and kwargs.get("device") is not None), "a copy between devices"
        if function._schema.is_mutable:
            self._remember(function, args, kwargs)
        result = function(*args, **kwargs)
        outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        self._inside |= {place(output) for output in outputs} - {place(leaf) for leaf in leaves}
        # A graph knows memory, not parameters, which may be given other memory later.
        args, kwargs = tree_map_only(Tensor, torch.detach, (args, kwargs))
        self.made.append((function, args, kwargs, outputs))
        return result

    def _remember(self, function: Any, args: Any, kwargs: Any) -> None:
        names = [argument.name for argument in function._schema.arguments]
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        for argument in function._schema.arguments:
            if argument.alias_info is not None and argument.alias_info.is_write:
                for tensor in tree_leaves(given[argument.name]):
                    if place(tensor) not in self._inside and place(tensor) not in self._before:
                        whole = torch.empty(0, dtype=tensor.dtype).set_(tensor.untyped_storage())
                        self._before[place(tensor)] = whole, whole.clone()

    def take_back(self) -> None:
        """Memory from outside gets its old content, and memory of results is filled with rubbish."""
        for _, _, _, outputs in self.made:
            for output in outputs:
                if place(output) in self._inside:
                    output.fill_(float("nan") if output.dtype.is_floating_point else 1)
        for whole, before in self._before.values():
            whole.copy_(before)

    def replay(self) -> None:
        """Does all operations again."""
        self.replays += 1
        with torch.no_grad():
            for function, args, kwargs, outputs in self.made:
                again = [leaf for leaf in tree_leaves(function(*args, **kwargs)) if isinstance(leaf, Tensor)]
                for output, new in zip(outputs, again, strict=True):
                    if output.data_ptr() != new.data_ptr():
                        output.copy_(new)


class Recorder:
    """Records on tapes."""

    def __init__(self) -> None:
        self.tapes: list[Tape] = []

    def __call__(self, function: Callable[[], Both], device: torch.device) -> tuple[Callable[[], object], Both]:
        tape = Tape()
        with tape:
            outputs = function()
        with torch.no_grad():
            tape.take_back()
        self.tapes.append(tape)
        return tape.replay, outputs

    @property
    def replays(self) -> int:
        return sum(tape.replays for tape in self.tapes)


class Pair:
    """The same networks twice: one trained by replaying, one without."""

    def __init__(
        self,
        optimizer: Callable[[Any], torch.optim.Optimizer],
        method: str = "base",
        precision: Any = "float32",
        hidden: int = 12,
    ) -> None:
        self.recorder = Recorder()
        self.populations = []
        for graphed in (False, True):
            stream = PermutedStream(digits(), [0, 1], batch_size=50)
            network = StackedMLP([0, 0, 1, 1], stream.features, hidden, stream.classes, layer_norm="after")
            made = optimizer(network.parameters())
            acting = METHODS[method](network, made)
            population = Population(network, made, stream, acting, precision=precision)
            if graphed:
                population._fast = GraphedStep(FastStep(network, made, precision), self.recorder)
            self.populations.append(population)

    def train(self, steps: int, first: int = 0) -> None:
        """Both learn the same batches, and every loss and entry is the same."""
        eager, graphed = self.populations
        task = eager.stream.task(0)
        batches = [task.batch(k) for k in range(first, first + steps)]
        found = [graphed.step(*batch) for batch in batches]
        for results, batch in zip(found, batches, strict=True):
            for one, other in zip(results, eager.step(*batch), strict=True):
                assert torch.equal(one, other)
        for (name, one), other in zip(graphed.network.named_parameters(), eager.network.parameters(), strict=True):
            assert torch.equal(one, other), name

    def both(self, change: Callable[[Population], object]) -> None:
        for population in self.populations:
            change(population)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("method", METHODS)
def test_replayed_steps_are_the_steps(method: str, optimizer: str) -> None:
    pair = Pair(OPTIMIZERS[optimizer], method)
    pair.train(40)
    # The first step may make gradients and momentum. Where a step reads features, or gradients that others do not keep,
    # it is taken as it is.
    assert pair.recorder.replays >= 39 - WARM_UP if method in ("base", "S&P") else pair.recorder.replays > 0
    assert len(pair.recorder.tapes) == 1


def test_replayed_steps_in_bfloat16() -> None:
    pair = Pair(OPTIMIZERS["SGDW"], precision="bfloat16")
    pair.train(16)
    assert pair.recorder.replays == 16 - WARM_UP


def test_replayed_steps_of_wide_networks() -> None:
    pair = Pair(OPTIMIZERS["SGDW with settings a replica"], hidden=70)
    pair.train(16)
    assert pair.recorder.replays == 16 - WARM_UP


def test_a_whole_task_is_the_same() -> None:
    eager, graphed = Pair(OPTIMIZERS["SGDW"], "SWR").populations
    expected, found = eager.train_task(0), graphed.train_task(0)
    for name in ("accuracy", "loss", "gradient_magnitude", "reinitialized"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name


def set_all(population: Population, name: str, value: Any) -> None:
    for group in population.optimizer.param_groups:
        group[name] = value


def load_halved(optimizer: torch.optim.Optimizer) -> None:
    """Takes back a state whose momentum is half of what it is."""
    saved = copy.deepcopy(optimizer.state_dict())
    for state in saved["state"].values():
        state["momentum_buffer"] /= 2
    optimizer.load_state_dict(saved)


CHANGES: dict[str, Callable[[Population], object]] = {
    "step size": lambda p: set_all(p, "lr", 0.003),
    "step size a replica": lambda p: set_all(p, "lr", [0.01, 0.02, 0.03, 0.04]),
    "weight decay": lambda p: set_all(p, "weight_decay", 1e-2),
    "no weight decay": lambda p: set_all(p, "weight_decay", 0),
    "momentum": lambda p: set_all(p, "momentum", 0.5),
    "frozen": lambda p: p.network.output.weight.requires_grad_(False),
    "other memory": lambda p: [setattr(q, "data", q.data.clone()) for q in p.network.parameters()],
    "no gradients": lambda p: p.optimizer.zero_grad(),
    "loaded": lambda p: load_halved(p.optimizer),
    "no momentum yet": lambda p: p.optimizer.state.clear(),
    "values": lambda p: torch._foreach_mul_([q.data for q in p.network.parameters()], 0.9),
}


@pytest.mark.one_in(3)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("change", CHANGES)
def test_what_is_changed_between_steps_counts(change: str, optimizer: str) -> None:
    pair = Pair(OPTIMIZERS[optimizer])
    pair.train(14)
    before = pair.recorder.replays
    pair.both(CHANGES[change])
    pair.train(14, first=14)
    assert pair.recorder.replays > before


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_step_size_changed_in_place_counts(dtype: torch.dtype) -> None:
    def schedule(population: Population) -> None:
        population.optimizer.param_groups[0]["lr"].mul_(0.7)

    pair = Pair(lambda p: SGDW(p, lr=torch.full((4,), 0.1, dtype=dtype)))
    for k in range(WARM_UP + 4):
        pair.both(schedule)
        pair.train(1, first=k)
    # One of another type is copied at each change, to new memory.
    assert pair.recorder.replays == (4 if dtype == torch.float32 else 0)


def test_batches_of_another_shape_are_recorded_anew() -> None:
    pair = Pair(OPTIMIZERS["SGDW"])
    eager, graphed = pair.populations
    task = eager.stream.task(0)
    for k in range(40):
        x, y = task.batch(k)
        batch = (x, y) if k < 20 else (x[:, :20], y[:, :20])
        assert torch.equal(graphed.step(*batch)[0], eager.step(*batch)[0])
    assert [tape.replays for tape in pair.recorder.tapes] == [20 - WARM_UP, 20 - WARM_UP]


def test_gradients_are_there_after_a_replay() -> None:
    pair = Pair(OPTIMIZERS["SGDW"])
    eager, graphed = pair.populations
    for k in range(2 * WARM_UP):
        batch = eager.stream.task(0).batch(k)
        eager._fast(*batch, gradients=True)
        graphed._fast(*batch, gradients=True)
    for one, other in zip(graphed.network.parameters(), eager.network.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)
        assert torch.equal(one, other)
    assert pair.recorder.replays > 0


def test_gradients_that_are_taken_away_each_time_are_made_each_time() -> None:
    pair = Pair(OPTIMIZERS["momentum"])
    for k in range(14):
        pair.both(lambda population: population.optimizer.zero_grad())
        pair.train(1, first=k)
        assert all(parameter.grad is not None for parameter in pair.populations[1].network.parameters())
    assert pair.recorder.tapes == []


def test_optimizers_that_count_on_the_host_or_are_observed_are_not_recorded() -> None:
    pair = Pair(lambda p: AdamW(p, lr=1e-3))
    pair.train(14)
    assert pair.recorder.tapes == []

    pair = Pair(OPTIMIZERS["SGDW"])
    called: list[int] = []
    pair.both(lambda population: population.optimizer.register_step_post_hook(lambda *_: called.append(1)))
    pair.train(14)
    assert pair.recorder.tapes == []
    assert len(called) == 28


def test_graphs_without_a_gpu_are_refused() -> None:
    stream = PermutedStream(digits(), [0])
    network = StackedMLP([0], stream.features, 10, stream.classes)
    optimizer = SGDW(network.parameters(), lr=0.1)
    with pytest.raises(ValueError, match=r"graphs=True .* on 'cpu'"):
        Population(network, optimizer, stream, graphs=True)
    with pytest.raises(ValueError, match="general=True"):
        Population(network, optimizer, stream, general=True, graphs=True)


@pytest.mark.cuda
@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("method", METHODS)
def test_cuda_graphs(method: str, optimizer: str, precision: Any) -> None:
    losses, networks = [], []
    for graphs in (False, True):
        stream = PermutedStream(digits(), [0, 1], device="cuda")
        network = StackedMLP([0, 0, 1, 1], stream.features, 12, stream.classes, layer_norm="after").to("cuda")
        made = OPTIMIZERS[optimizer](network.parameters())
        population = Population(
            network, made, stream, METHODS[method](network, made), precision=precision, graphs=graphs
        )
        losses.append(torch.stack([population.step(*stream.task(0).batch(k))[0] for k in range(40)]))
        set_all(population, "lr", 0.02)
        losses[-1] = torch.cat((losses[-1], population.train_task(1).loss[None]))
        networks.append(network)
        if graphs:
            assert isinstance(population._fast, GraphedStep)
            assert population._fast._recording is not None
    torch.testing.assert_close(*losses, rtol=1e-3, atol=1e-3)
    if method == "base":
        for one, other in zip(*(network.parameters() for network in networks), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-3)


@pytest.mark.cuda
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there is one GPU")
def test_cuda_graphs_on_another_gpu() -> None:
    stream = PermutedStream(digits(), [0], device="cuda:1")
    network = StackedMLP([0], stream.features, 12, stream.classes).to("cuda:1")
    population = Population(network, SGDW(network.parameters(), lr=0.05), stream, graphs=True)
    losses = [population.step(*stream.task(0).batch(k))[0].item() for k in range(100)]
    assert sum(losses[-20:]) < sum(losses[:20])
