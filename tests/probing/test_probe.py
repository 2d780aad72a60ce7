"""The probe tells networks that learn slowly from others, and changes nothing of what it probes."""

from __future__ import annotations

import copy
import random
import sys
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from torch import nn

import supple
from supple.methods.seeds import next_seed
from supple.probing import Task

STEPS = 40


def make() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 2))


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.3)


def task(steps: int = STEPS) -> Task:
    x = torch.randn(256, 4, generator=torch.Generator().manual_seed(0))
    return Task(x, (x[:, 0] * x[:, 1] > 0).long(), steps=steps)


def dead(block: int = 0) -> nn.Module:
    """A network most of whose units in one layer never respond."""
    torch.manual_seed(77)
    network = make()
    with torch.no_grad():
        network[block].bias[:20] = -30.0
    return network


def told(ours, theirs, **settings):
    """A probe of curves that are made up: of the network, and of the fresh one of each seed."""
    model = make()
    theirs, used = np.broadcast_to(theirs, (settings.get("seeds", 5), len(ours[0]))), []

    def learn(network, optimizer, seed):
        used.append(seed)
        return (ours if used.count(seed) == 1 else theirs)[seed]

    return supple.probe(model, make, learn, **settings)


def line(steps: float, count: int = 1000) -> np.ndarray:
    """A loss that falls from 1 to 0 in so many steps, and stays there."""
    return np.clip(1 - np.arange(count) / steps, 0, 1)


def test_slower_by_what_the_steps_say():
    found = told([line(400 * factor) for factor in (1.4, 1.5, 1.6, 1.45, 1.55)], line(400))
    assert found.slowdown.mean == pytest.approx(0.5, abs=0.02)
    factors = np.array([1.4, 1.5, 1.6, 1.45, 1.55])
    half = 3.747 * np.log(factors).std(ddof=1) * np.sqrt(1.2)  # of one network among others
    low, high = np.exp(np.log(factors).mean() + np.array([-half, half])) - 1
    assert found.slowdown[1:] == pytest.approx((low, high), abs=0.02)
    assert found.verdict == "slower by {:.0f}% ({:.0f} to {:.0f}%)".format(*(100 * end for end in found.slowdown))
    back = told([line(400)] * 5, np.stack([line(400 * factor) for factor in (1.4, 1.5, 1.6, 1.45, 1.55)]))
    assert back.verdict.startswith("faster by 33%")
    assert (1 + back.slowdown.mean) * (1 + found.slowdown.mean) == pytest.approx(1, abs=0.01)


def test_as_fast_where_all_of_the_interval_is_within_the_margin():
    ours = [line(400 * factor) for factor in (1.01, 1.0, 1.02, 0.99, 1.01)]
    assert told(ours, line(400)).verdict == "learns as fast as fresh"
    differ = "cannot tell: fresh networks differ as much from each other; probe several networks trained alike"
    assert told(ours, line(400), margin=0.001).verdict == differ


def test_cannot_tell_says_how_many_seeds():
    models = [make() for _ in range(5)]
    ours = [line(400 * factor) for factor in (1.5, 0.9, 1.3, 1.1, 0.95)]
    used = []

    def learn(network, optimizer, seed):
        used.append(seed)
        return ours[seed] if used.count(seed) == 1 else line(400)

    found = supple.probe(models, make, learn)
    assert found.verdict.startswith("cannot tell: more seeds (about ")
    assert found.slowdown.low < 0 < found.slowdown.high


def test_scores_are_better_where_they_are_higher():
    ours, theirs = [line(600)] * 5, np.stack([line(400 * factor) for factor in (1.0, 1.02, 0.98, 1.01, 0.99)])
    losses = told(ours, theirs)
    scores = told([1 - one for one in ours], 1 - theirs, higher=True)
    assert scores.verdict == losses.verdict
    assert scores.slowdown == pytest.approx(losses.slowdown)
    assert scores.steps.difference == pytest.approx(losses.steps.difference)
    assert scores.final.fresh == pytest.approx(1 - losses.final.fresh)
    assert "final score" in str(scores)


def test_dead_units_make_slower_and_a_fresh_network_is_no_alarm():
    assert supple.probe(dead(), make, task(100), sgd).verdict.startswith("slower by")
    torch.manual_seed(5)
    assert not supple.probe(make(), make, task(100), sgd).verdict.startswith(("slower", "faster"))


def test_nothing_changes():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 2)).eval()
    network[1].train()
    before = copy.deepcopy(network.state_dict())
    modes = [module.training for module in network.modules()]
    # The next method is to have the seed that it would have had.
    torch.manual_seed(1)
    following = next_seed(), next_seed()
    torch.manual_seed(2)
    next_seed()
    torch.manual_seed(1)
    assert next_seed() == following[0]
    draws = np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    state = torch.get_rng_state()
    probe = supple.probe(network, lambda: copy.deepcopy(network).apply(_reset), task(6), seeds=2)
    probe.by_layer()
    probe.cures([supple.FIRE, lambda model, optimizer: supple.L2(model, optimizer, l2=1e-3)])
    assert next_seed() == following[1]
    assert torch.equal(torch.get_rng_state(), state)
    assert (np.random.get_state()[1].tolist(), random.getstate()) == draws  # noqa: NPY002
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


def _reset(module: nn.Module) -> None:
    module.train()
    if hasattr(module, "reset_parameters"):
        module.reset_parameters()


def test_hooks_of_the_network_do_not_see_the_probe():
    network, calls = make(), []
    network[0].register_forward_hook(lambda *_: calls.append(1))
    supple.probe(network, make, task(3), seeds=2)
    assert not calls


def test_both_learn_the_same_and_fresh_ones_differ():
    seen = []

    def learn(network, optimizer, seed):
        seen.append((seed, float(network[0].weight.detach().sum()), float(torch.rand(())), random.random()))
        assert network.training
        return [1.0, 0.5]

    network = make().eval()
    supple.probe(network, make, learn, seeds=[3, 8])
    seeds, weights, draws, others = zip(*seen, strict=True)
    assert seeds == (3, 3, 8, 8)
    assert weights[0] == weights[2] == float(network[0].weight.detach().sum())
    assert weights[1] != weights[3]
    assert draws[0] == draws[1] != draws[2] == draws[3]
    assert others[0] == others[1] != others[2] == others[3]


def test_a_fresh_network_can_take_the_seed():
    seen = []

    def take(seed):
        seen.append(seed)
        torch.manual_seed(seed)
        return make()

    supple.probe(make(), take, task(3), seeds=[4, 6])
    assert set(seen) == {4, 6}


def test_by_layer_finds_the_block():
    models = []
    for seed in range(3):
        torch.manual_seed(seed + 50)
        network = dead(2)
        models.append(network)
    probe = supple.probe(models, make, task(60), sgd)
    found = {row.name: row for row in probe.by_layer().rows}
    assert list(found) == ["as it is", "0 fresh", "2 fresh", "4 fresh"]
    assert min(found.values(), key=lambda row: row.slowdown.mean).name == "2 fresh"
    assert found["as it is"].slowdown == probe.slowdown
    # The same by hand.
    by_hand = [copy.deepcopy(network) for network in models]
    for seed, network in enumerate(by_hand):
        torch.manual_seed(seed)
        network[2] = make()[2]
    assert supple.probe(by_hand, make, task(60), sgd).slowdown == pytest.approx(found["2 fresh"].slowdown)
    assert [row.name for row in probe.by_layer(["4"]).rows] == ["as it is", "4 fresh"]
    with pytest.raises(ValueError, match="'5' is no module of the network that has parameters; there are 0, 2, 4"):
        probe.by_layer(["5"])


def test_cures_are_ranked():
    acted = []

    def swr(model, optimizer):
        acted.append(supple.SWR(model, optimizer, frequency=5, factor=1e-3, seed=0))
        return acted[-1]

    models = [dead() for _ in range(3)]
    probe = supple.probe(models, make, task(60), sgd)
    everything = lambda model, optimizer: supple.Reset(model, optimizer, layers=0, seed=0)  # noqa: E731
    found = probe.cures({"SWR": swr, "Reset": everything})
    names = [row.name for row in found.rows]
    assert sorted(names) == ["Reset", "SWR", "as it is", "trained on"]
    means = [row.slowdown.mean for row in found.rows]
    assert means == sorted(means)
    assert names.index("Reset") < names.index("as it is")
    assert {int(method.reinitialized.total) > 0 for method in acted[1:]} == {True}
    assert acted[-1].steps == 60
    assert "compared with fresh" in str(found)
    assert next(row for row in found.rows if row.name == "Reset").change.mean < 0


def test_methods_are_named_by_what_they_make():
    probe = supple.probe(make(), make, task(3), seeds=2)
    names = [row.name for row in probe.cures([supple.FIRE]).rows]
    assert sorted(names) == ["FIRE(every=0, iterations=10, scale='width')", "as it is"]
    with pytest.raises(TypeError, match="a cure gave a int; it has to make a method"):
        probe.cures([lambda model, optimizer: 3])


def other():
    return nn.Sequential(nn.Linear(4, 25), nn.ReLU(), nn.Linear(25, 2))


def frozen():
    network = make()
    network[0].weight.requires_grad_(False)
    return network


ONE = make()


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"fresh": other}, ValueError, r"another architecture: 0.weight is \[25, 4\], in the trained one \[24, 4\]"),
        ({"fresh": lambda: make()[:3]}, ValueError, "another architecture: 4.weight is only in the trained one"),
        ({"fresh": lambda: make().double()}, ValueError, "0.weight is torch.float64, in the trained one torch.float32"),
        ({"fresh": frozen}, ValueError, "0.weight is frozen in the fresh network and not in the trained one"),
        ({"fresh": lambda: ONE}, ValueError, "fresh gives the same network each time; it has to make a new one"),
        ({"fresh": lambda: copy.deepcopy(ONE)}, ValueError, "same values for seeds 0 and 1; let it draw them"),
        ({"fresh": lambda: None}, TypeError, "fresh gave a NoneType; it has to make a torch.nn.Module"),
        ({"fresh": ONE}, TypeError, "fresh is a Sequential; it has to be a function that makes one"),
        ({"model": 3}, TypeError, "model is a int; it has to be a torch.nn.Module"),
        ({"model": [ONE, ONE], "seeds": 3}, ValueError, "there are 2 networks and 3 seeds; give one a seed"),
        ({"model": nn.ReLU()}, ValueError, "the model has no parameters"),
        ({"optimizer": sgd(ONE.parameters())}, TypeError, "optimizer is a SGD; it has to be a function that makes one"),
        ({"seeds": 1}, ValueError, "an interval needs two or more"),
        ({"seeds": [2, 2]}, ValueError, "an interval needs two or more, all different"),
        ({"margin": 0}, ValueError, "margin is 0; it has to be above 0"),
        ({"learn": lambda *_: None}, TypeError, "returned None; it has to return the curve"),
        ({"learn": lambda *_: 0.5}, TypeError, "returned a float; it has to return the curve"),
        ({"learn": lambda *_: [0.5]}, ValueError, "returned 1 numbers; a curve needs two or more"),
        ({"learn": lambda *_: [1.0] * random.randint(2, 10**6)}, ValueError, "and .* the time before"),
        (
            {"learn": lambda *_: [1.0, float("nan")]},
            ValueError,
            "the fresh network of seed 0 has a loss of nan at step 1",
        ),
        ({"learn": 3}, TypeError, "examples are a int; they have to be a tensor"),
    ],
    ids=range(21),
)
def test_bad_input_is_named(change, error, said):
    arguments = {"model": make(), "fresh": make, "learn": task(3), "optimizer": sgd, "progress": False} | change
    with pytest.raises(error, match=said):
        supple.probe(**arguments)


def test_a_network_that_diverges_is_told():
    network = make()
    with torch.no_grad():
        network[0].weight.fill_(float("inf"))
    found = supple.probe(network, make, task(100), sgd, seeds=8)
    assert found.verdict.startswith("slower by")
    assert str(found).endswith("; its loss was not finite with 8 of 8 seeds")


def test_a_notebook_shows_the_cells_of_what_is_printed():
    probe = supple.probe(make(), make, task(5), sgd, seeds=2)
    for shown in (probe, probe.by_layer(["0"])):
        page = ElementTree.fromstring(f"<page>{shown._repr_html_()}</page>")
        cells = [cell.text or "" for cell in page.iter() if cell.tag in ("th", "td")]
        assert len(cells) >= 9
        assert all(cell in str(shown) for cell in cells)
    assert probe.verdict in "".join(ElementTree.fromstring(f"<page>{probe._repr_html_()}</page>").itertext())


def test_nothing_learned_is_told():
    found = supple.probe(make(), make, lambda *_: [1.0] * 10, seeds=3)
    assert found.verdict == "cannot tell: nothing was learned in 10 steps; give more, or another step size"


def test_equal_curves_are_as_fast():
    assert told([line(400)] * 5, line(400)).verdict == "learns as fast as fresh"


def test_progress_is_shown_in_place(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    supple.probe(make(), make, task(3), seeds=2)
    text = capsys.readouterr().err
    assert text.count("\rprobe: ") == 4
    assert "4 of 4 networks have learned" in text
    assert text.endswith("\n")
    supple.probe(make(), make, task(3), seeds=2, progress=False)
    assert capsys.readouterr().err == ""


def curves_of_fresh_networks(pairs: int, seeds: int, several: bool, draw: int) -> torch.Tensor:
    """Losses [pairs, seeds, 2, steps] of networks 6-12-2 that learn random labels by heart, all trained side by side.

    Of a pair of networks the first is the same for all seeds, or another for each; the second is another for each. Both
    learn the labels of the pair and the seed, from the same batches.
    """
    generator = torch.Generator().manual_seed(draw)

    def drawn(*shape: int, within: float) -> torch.Tensor:
        first = torch.rand(pairs, seeds if several else 1, 1, *shape, generator=generator).expand(-1, seeds, -1, -1, -1)
        second = torch.rand(pairs, seeds, 1, *shape, generator=generator)
        return ((torch.cat([first, second], dim=2) * 2 - 1) * within).requires_grad_()

    layers = [drawn(*shape, within=shape[-1 if shape[0] == 1 else 0] ** -0.5) for shape in ((6, 12), (12, 2))]
    biases = [drawn(1, size, within=within**-0.5) for size, within in ((12, 6), (2, 12))]
    x = torch.randn(pairs, seeds, 1, 64, 6, generator=generator)
    y = torch.randint(2, (pairs, seeds, 1, 64), generator=generator)
    losses = []
    for step in range(120):
        chosen = torch.arange(16) + 16 * (step % 4)
        hidden = (x[..., chosen, :] @ layers[0] + biases[0]).relu()
        logits = hidden @ layers[1] + biases[1]
        target = y[..., chosen].expand(-1, -1, 2, -1)
        loss = nn.functional.cross_entropy(logits.movedim(-1, 1), target.contiguous(), reduction="none").mean(dim=-1)
        losses.append(loss.detach())
        for parameter, gradient in zip(
            [*layers, *biases], torch.autograd.grad(loss.sum(), [*layers, *biases]), strict=True
        ):
            parameter.data -= 0.5 * gradient
    return torch.stack(losses, dim=-1)


@pytest.mark.slow
@pytest.mark.parametrize("draw", [1, 2])
@pytest.mark.parametrize("several", [False, True])
def test_two_networks_of_one_kind_are_seldom_told_apart(several, draw):
    """In at most 5% of 200 pairs: a network, or one a seed, and fresh ones that were drawn in the same way."""
    losses, verdicts = curves_of_fresh_networks(200, 5, several, draw), []
    for pair in losses:
        turns = iter(pair.flatten(0, 1))
        found = supple.probe(
            [make() for _ in range(5)] if several else make(), make, lambda *_, turns=turns: next(turns)
        )
        verdicts.append(found.verdict)
    alarms = sum(verdict.startswith(("slower", "faster")) for verdict in verdicts)
    print(f"{alarms} alarms, {verdicts.count('learns as fast as fresh')} as fast")
    assert losses[..., -20:].mean() < 0.8 * losses[..., :20].mean()  # something was learned
    assert alarms <= 10
