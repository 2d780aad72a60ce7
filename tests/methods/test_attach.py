"""A method that is attached does in any loop what the three-line loop does, and is saved with the optimizer."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import batch, network, unchanged, values
from torch import nn

import supple

METHODS: dict[str, Callable[..., supple.Method]] = {
    "SWR": lambda m, o: supple.SWR(m, o, frequency=2, factor=0.3, decay=0.5, optimizer_state="keep", seed=1),
    "CBP": lambda m, o: supple.CBP(m, o, maturity=2, replacement_rate=0.1, decay=0.9, optimizer_state="keep", seed=1),
    "UPGD": lambda m, o: supple.UPGD(m, o, seed=1),
    "L2Init": lambda m, o: supple.L2Init(m, o, strength=0.1, seed=1),
    "chain": lambda m, o: supple.chain(
        supple.L2Init(m, strength=0.1, seed=1),
        supple.TRAC(m, o, seed=2),
        supple.SWR(m, o, frequency=3, factor=0.3, reinit="initial", optimizer_state="keep", seed=3),
    ),
}


def gradients(model: nn.Module, number: int, scale: float = 1.0) -> torch.Tensor:
    x, y = batch(number)
    loss = nn.functional.cross_entropy(model(x), y)
    (loss * scale).backward()
    return loss


class Hand:
    """Calls a method where a loop would; nothing where the method is attached."""

    def __init__(self, method: supple.Method | None) -> None:
        self.parts = () if method is None else method.parts

    def before(self, again: bool = False) -> None:
        for part in self.parts:
            if not (again and part.reshapes):
                part.before_step()

    def after(self) -> None:
        for part in self.parts:
            part.step()


def plain(model: nn.Module, optimizer: torch.optim.Optimizer, hand: Hand, steps: range) -> None:
    for number in steps:
        optimizer.zero_grad()
        gradients(model, number)
        hand.before()
        optimizer.step()
        hand.after()


def accumulated(model: nn.Module, optimizer: torch.optim.Optimizer, hand: Hand, steps: range) -> None:
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    for number in steps:
        gradients(model, number, 0.5)
        if number % 2:
            hand.before()
            optimizer.step()
            hand.after()
            scheduler.step()
            optimizer.zero_grad()


def closures(model: nn.Module, optimizer: torch.optim.Optimizer, hand: Hand, steps: range) -> None:
    for number in steps:
        evaluations = 0

        def closure(number: int = number) -> torch.Tensor:
            nonlocal evaluations
            optimizer.zero_grad()
            loss = gradients(model, number)
            hand.before(again=evaluations > 0)
            evaluations += 1
            return loss

        # Given by place or by name.
        optimizer.step(closure) if number % 2 else optimizer.step(closure=closure)
        hand.after()


def scaled(model: nn.Module, optimizer: torch.optim.Optimizer, hand: Hand, steps: range) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for number in steps:
        optimizer.zero_grad()
        gradients(model, number, float(scaler.get_scale()))
        skipped = number % 3 == 1
        if skipped:
            next(model.parameters()).grad[0] = torch.inf  # type: ignore[index]
        scaler._lazy_init_scale_growth_tracker(torch.device("cpu")) if scaler._scale is None else None
        scaler.unscale_(optimizer)
        if not skipped:
            hand.before()
        scaler.step(optimizer)
        scaler.update()
        if not skipped:
            hand.after()


class Derived(torch.optim.Adam):
    """Calls the step of its base class, which calls the hooks a second time."""

    def step(self, closure: Any = None) -> Any:
        return super().step(closure)


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=0.02)


LOOPS: dict[str, tuple[Callable[..., Any], Callable[..., None]]] = {
    "plain": (adam, plain),
    "step of a base class": (lambda p: Derived(p, lr=0.02), plain),
    "gradient accumulation and a scheduler": (adam, accumulated),
    "closure": (adam, closures),
    "LBFGS": (lambda p: torch.optim.LBFGS(p, lr=0.1, max_iter=4), closures),
    "scaled": (adam, scaled),
    "scaled and fused": (lambda p: torch.optim.Adam(p, lr=0.02, fused=True), scaled),
}


def run(loop: str, method: str, attached: bool) -> tuple[nn.Module, supple.Method]:
    model = network()
    make, train = LOOPS[loop]
    adam([torch.zeros(1, requires_grad=True)])  # whose step has hooks from now on
    optimizer = make(model.parameters())
    made = METHODS[method](model, optimizer)
    train(model, optimizer, Hand(None if attached else made), range(8))
    return model, made


@pytest.mark.one_in(3)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("loop", LOOPS)
def test_attached_is_as_called_by_hand(loop: str, method: str) -> None:
    model = network()
    make, train = LOOPS[loop]
    adam([torch.zeros(1, requires_grad=True)])  # whose step has hooks from now on
    optimizer = make(model.parameters())
    attached = METHODS[method](model, optimizer).attach()
    train(model, optimizer, Hand(None), range(8))
    expected, by_hand = run(loop, method, attached=False)
    assert unchanged(model, values(expected))
    assert [part.steps for part in attached.parts] == [part.steps for part in by_hand.parts]
    assert 0 < attached.parts[0].steps <= 8
    assert torch.equal(attached.reinitialized.total, by_hand.reinitialized.total)
    assert method not in ("SWR", "CBP") or attached.reinitialized.total > 0


def test_a_step_that_fails_does_not_stop_the_next() -> None:
    model = network()
    optimizer = Derived(model.parameters(), lr=0.02)
    method = METHODS["L2Init"](model, optimizer).attach()

    def fails() -> None:
        raise KeyError("this batch")

    for _ in range(2):
        with pytest.raises(KeyError, match="this batch"):
            optimizer.step(fails)  # type: ignore[arg-type]
        assert method.steps in (0, 1)
        plain(model, optimizer, Hand(None), range(1))
    assert method.steps == 2


def test_scaled_gradients_are_refused_where_something_is_added_to_them() -> None:
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    METHODS["L2Init"](model, optimizer).attach()
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(nn.functional.cross_entropy(model(batch(0)[0]), batch(0)[1])).backward()
    before = values(model)
    with pytest.raises(RuntimeError, match=r"call scaler\.unscale_\(optimizer\)"):
        scaler.step(optimizer)
    assert unchanged(model, before)


@pytest.mark.slow
def test_a_compiled_step_goes_on_with_the_method_outside_of_it() -> None:
    def trained(attach_at: int | None) -> nn.Module:
        torch._dynamo.reset()
        model = network()
        optimizer = adam(model.parameters())
        step = torch.compile(optimizer.step, backend="eager")
        method = METHODS["SWR"](model, optimizer)
        for number in range(8):
            if number == attach_at:
                method.attach()
            optimizer.zero_grad()
            gradients(model, number)
            step()
            if method.attachment is None:
                method.step()
        assert method.steps == 8
        assert method.reinitialized.total > 0
        return model

    by_hand = values(trained(attach_at=None))
    assert unchanged(trained(attach_at=0), by_hand)
    assert unchanged(trained(attach_at=3), by_hand)


@pytest.mark.slow
def test_a_step_compiled_in_one_graph_says_what_breaks_it() -> None:
    torch._dynamo.reset()
    model = network()
    optimizer = adam(model.parameters())
    METHODS["SWR"](model, optimizer).attach()
    gradients(model, 0)
    with pytest.raises(Exception, match="Attachment"):
        torch.compile(optimizer.step, backend="eager", fullgraph=True)()


def test_optimizers_in_the_backward_pass_have_a_method_each() -> None:
    def trained(attached: bool) -> nn.Module:
        model = network()
        methods = {}
        for name, parameter in model.named_parameters():
            optimizer = torch.optim.SGD([parameter], lr=0.05)
            methods[name] = supple.SWR(model, optimizer, frequency=2, factor=0.3, include=name, seed=len(methods))
            if attached:
                methods[name].attach()

            def update(p: torch.Tensor, optimizer: Any = optimizer, method: Any = methods[name]) -> None:
                optimizer.step()
                if not attached:
                    method.step()
                optimizer.zero_grad()

            parameter.register_post_accumulate_grad_hook(update)
        for number in range(6):
            gradients(model, number)
        assert all(method.steps == 6 for method in methods.values())
        assert sum(int(method.reinitialized.total) for method in methods.values()) > 0
        return model

    assert unchanged(trained(attached=True), values(trained(attached=False)))
    model = network()
    one = torch.optim.SGD([model[0].weight], lr=0.1)
    with pytest.raises(ValueError, match=r"does not hold 0\.bias and 2 more.*a method for each optimizer"):
        supple.SWR(model, one).attach()
    with pytest.raises(ValueError, match=r"hidden units need all of their weights in one optimizer"):
        supple.ReDo(model, one, optimizer_state="keep").attach()


@pytest.mark.parametrize("loaded", ["after the method was made", "before"])
@pytest.mark.parametrize("method", METHODS)
def test_whoever_saves_the_optimizer_saves_all(method: str, loaded: str, tmp_path: Path) -> None:
    whole = network()
    optimizer = adam(whole.parameters())
    METHODS[method](whole, optimizer).attach(checkpoint=True)
    plain(whole, optimizer, Hand(None), range(5))
    torch.save({"model": whole.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "checkpoint.pt")
    plain(whole, optimizer, Hand(None), range(5, 9))

    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    model = network()
    optimizer = adam(model.parameters())
    if loaded == "before":
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        # Also through the hands of somebody who knows nothing of methods.
        optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    resumed = METHODS[method](model, optimizer).attach(checkpoint=True)
    if loaded != "before":
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
    assert all(part.steps == 5 for part in resumed.parts)
    assert "supple" not in optimizer.param_groups[0]
    plain(model, optimizer, Hand(None), range(5, 9))
    assert unchanged(model, values(whole))


def test_detached_and_closed_it_leaves_no_hook() -> None:
    model = network()
    optimizer = adam(model.parameters())
    with supple.chain(METHODS["SWR"](model, optimizer), METHODS["CBP"](model, optimizer)).attach(
        checkpoint=True
    ) as both:
        both.detach()
        both.detach()
        both.attach()
        plain(model, optimizer, Hand(None), range(3))
        assert "supple" not in optimizer.state_dict()["param_groups"][0]
        both.detach()
        plain(model, optimizer, Hand(both), range(3, 6))
        assert [part.steps for part in both.parts] == [6, 6]
        both.attach()
    plain(model, optimizer, Hand(None), range(6, 8))
    assert [part.steps for part in both.parts] == [6, 6]
    assert not any(hooks for name, hooks in vars(optimizer).items() if name.endswith("_hooks"))


def test_a_copy_is_not_attached() -> None:
    model = network()
    optimizer = adam(model.parameters())
    method = METHODS["SWR"](model, optimizer).attach()
    model2, optimizer2, method2 = copy.deepcopy((model, optimizer, method))
    plain(model2, optimizer2, Hand(method2), range(2))
    assert (method.steps, method2.steps) == (0, 2)


# What is refused, and leaves everything as it was.


def test_called_by_hand_beside_it() -> None:
    model = network()
    optimizer = adam(model.parameters())
    both = supple.chain(METHODS["SWR"](model, optimizer), METHODS["L2Init"](model, optimizer)).attach()
    for call in (both.step, both.before_step, both.methods[0].step, both.methods[1].before_step):
        with pytest.raises(RuntimeError, match=r"is attached to the Adam and acts by itself.*leave the call out"):
            call()
    assert [part.steps for part in both.parts] == [0, 0]


def test_attached_twice() -> None:
    model = network()
    optimizer = adam(model.parameters())
    method = METHODS["SWR"](model, optimizer).attach()
    with pytest.raises(RuntimeError, match=r"SWR is attached already, to the Adam; detach\(\) it first"):
        method.attach()
    with pytest.raises(RuntimeError, match="SWR is attached already"):
        supple.chain(METHODS["L2Init"](model, optimizer), method).attach()
    plain(model, optimizer, Hand(None), range(2))
    assert method.steps == 2


def test_two_states_in_one_optimizer() -> None:
    model = network()
    optimizer = adam(model.parameters())
    METHODS["SWR"](model, optimizer).attach(checkpoint=True)
    other = METHODS["L2Init"](model, optimizer)
    with pytest.raises(ValueError, match=r"holds that of SWR\(.* already.*supple\.chain\(a, b\)"):
        other.attach(checkpoint=True)
    other.attach()
    plain(model, optimizer, Hand(None), range(2))
    assert other.steps == 2


def test_no_optimizer_and_others() -> None:
    model, other = network(), network()
    with pytest.raises(ValueError, match=r"SWR has no optimizer.*SWR\(model, optimizer, \.\.\.\)"):
        supple.SWR(model).attach()
    with pytest.raises(ValueError, match="holds no parameter of this Sequential"):
        supple.SWR(model, adam(other.parameters())).attach()
    parts = [supple.SWR(one, adam(one.parameters())) for one in (model, other)]
    with pytest.raises(ValueError, match="have different optimizers"):
        supple.chain(*parts).attach()
    assert all(part.attachment is None for part in parts)
    part = supple.SWR(model[0], adam(model.parameters()))
    part.close()
    with pytest.raises(RuntimeError, match="was closed"):
        part.attach()


class Wrapper(torch.optim.Optimizer):
    """An optimizer as some are, which neither initializes its base class nor calls hooks."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer, self.param_groups, self.state = optimizer, optimizer.param_groups, optimizer.state
        self.defaults = optimizer.defaults

    def step(self, closure: Any = None) -> Any:
        return self.optimizer.step(closure)


class OwnState(torch.optim.SGD):
    def state_dict(self) -> dict[str, Any]:
        return {"state": {}, "param_groups": [{}]}


def test_an_optimizer_without_hooks() -> None:
    model = network()
    method = supple.L2(model, Wrapper(adam(model.parameters())), l2=0.1)
    with pytest.raises(ValueError, match=r"step\(\) of this Wrapper calls no hooks.*call method\.step\(\) after it"):
        method.attach()
    method = supple.L2(model, OwnState(model.parameters(), lr=0.1), l2=0.1)
    with pytest.raises(ValueError, match=r"state_dict\(\) of this OwnState calls no hooks"):
        method.attach(checkpoint=True)
    assert method.attachment is None
    assert not method.optimizer._optimizer_step_post_hooks  # type: ignore[union-attr]
    assert method.attach().attachment is not None


def test_a_state_of_another_method_and_none() -> None:
    model = network()
    optimizer = adam(model.parameters())
    METHODS["SWR"](model, optimizer).attach(checkpoint=True)
    plain(model, optimizer, Hand(None), range(3))
    saved = optimizer.state_dict()
    other = network()
    another = adam(other.parameters())
    method = METHODS["L2Init"](other, another).attach(checkpoint=True)
    with pytest.raises(ValueError, match="this is the state of SWR, not of L2Init"):
        another.load_state_dict(saved)
    assert not another.state
    method.detach()
    another.load_state_dict(saved)
    with pytest.raises(ValueError, match="this is the state of SWR, not of L2Init"):
        method.attach(checkpoint=True)
    assert "supple" in another.param_groups[0]
    assert method.attachment is None
    del another.param_groups[0]["supple"]
    method.attach(checkpoint=True)
    with pytest.warns(UserWarning, match="holds none of a method"):
        another.load_state_dict(adam(network().parameters()).state_dict())
    # A state that the optimizer refuses changes no method either.
    shorter = copy.deepcopy(saved)
    shorter["param_groups"][0]["params"].pop()
    resumed = METHODS["SWR"](model2 := network(), adam(model2.parameters())).attach(checkpoint=True)
    with pytest.raises(ValueError, match="doesn't match the size of optimizer's group"):
        resumed.optimizer.load_state_dict(shorter)  # type: ignore[union-attr]
    assert resumed.parts[0].steps == 0
