"""Which parameters a method acts on, and what it says of those it cannot act on."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import network
from torch import nn

import supple


class Network(nn.Module):
    """An embedding, tied to the last layer, and a body."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(7, 4)
        self.body = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 4))
        self.head = nn.Linear(4, 7)
        self.head.weight = self.embedding.weight
        self.frozen = nn.Linear(4, 4).requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.frozen(self.body(self.embedding(x))))


EVERY = {
    "embedding.weight",
    "head.bias",
    *(f"body.{number}.{name}" for number in (0, 1, 2) for name in ("weight", "bias")),
}
BODY = {name for name in EVERY if name.startswith("body")}
NORM = {"body.1.weight", "body.1.bias"}
CHOICES: list[tuple[dict[str, Any], set[str]]] = [
    ({}, EVERY),
    ({"include": "body.0.weight"}, {"body.0.weight"}),
    ({"include": "body.*"}, BODY),
    ({"include": nn.LayerNorm}, NORM),
    ({"include": ["body.0.bias", nn.LayerNorm]}, {"body.0.bias", *NORM}),
    ({"include": lambda name, parameter: parameter.ndim == 2}, {n for n in EVERY if "weight" in n} - NORM),
    ({"exclude": nn.Embedding}, EVERY - {"embedding.weight"}),
    ({"exclude": "head.*"}, EVERY - {"embedding.weight", "head.bias"}),  # by the second name of the tied one
    ({"exclude": ["*.bias", nn.LayerNorm]}, {n for n in EVERY if "weight" in n} - NORM),
    ({"include": "body.*", "exclude": lambda name, parameter: name in NORM}, BODY - NORM),
    ({"include": ["frozen.weight", "head.bias"]}, {"head.bias"}),
    ({"exclude": lambda name, parameter: False}, EVERY),
]


@pytest.mark.parametrize(("choice", "expected"), CHOICES, ids=[str(number) for number in range(len(CHOICES))])
def test_only_the_chosen_parameters_change(choice: dict[str, Any], expected: set[str]) -> None:
    methods = [
        lambda m: supple.SWR(m, frequency=1, factor=1.0, utility="magnitude", pruning="proportional", **choice),
        lambda m: supple.ShrinkAndPerturb(m, l2=0.5, variance=1.0, **choice),
    ]
    for make in methods:
        model = Network()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.5 if parameter.ndim == 1 else 0  # no constant is at its initial value
        initial = {"initial": {"*.bias": supple.Constant(0), "body.1.weight": supple.Constant(1)}}
        given = dict(choice)
        if make is methods[0]:
            method: supple.Method = supple.SWR(
                model, frequency=1, factor=1.0, utility="magnitude", pruning="proportional", **given, **initial
            )
        else:
            method = make(model)
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        method.step()
        changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
        assert changed == expected
        assert {name for name, p in method.parameters.items() if p.requires_grad} == expected


@pytest.mark.parametrize("kind", [supple.L2, supple.ShrinkAndPerturb, supple.SWR])
def test_choices_show_in_the_text(kind: Any) -> None:
    assert "exclude=[Embedding, '*.bias']" in repr(kind(Network(), exclude=[nn.Embedding, "*.bias"]))
    assert "include" not in repr(kind(Network()))


def test_what_matches_nothing_is_named() -> None:
    model = Network()
    with pytest.raises(ValueError, match=r"include 'body\.0\.wieght' matches no parameter.*did you mean 'body"):
        supple.SWR(model, include="body.0.wieght")
    with pytest.raises(ValueError, match="exclude Conv2d matches no module with parameters"):
        supple.SWR(model, exclude=nn.Conv2d)
    with pytest.raises(TypeError, match="include 3 is neither"):
        supple.SWR(model, include=[3])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="exclude <class 'int'> is neither"):
        supple.SWR(model, exclude=int)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="leave no parameter of this Network"):
        supple.SWR(model, include="frozen.*")


def test_what_is_left_out_need_not_be_known_nor_be_in_the_optimizer() -> None:
    model = Network()
    with torch.no_grad():
        model.body[0].weight.copy_(torch.arange(24.0).exp().view(6, 4))  # no known distribution
    optimizer = torch.optim.Adam([p for name, p in model.named_parameters() if name != "body.0.weight"])
    with pytest.raises(ValueError, match=r"body\.0\.weight: unknown"):
        supple.SWR(model, optimizer)
    supple.SWR(model, optimizer, exclude="body.0.weight", optimizer_state="fresh")


class Odd(nn.Module):
    """A complex parameter and one of whole numbers beside an ordinary one."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(30, 3))
        self.phase = nn.Parameter(torch.randn(3, dtype=torch.complex64))
        self.table = nn.Parameter(torch.arange(3), requires_grad=False)


def test_complex_parameters_are_refused_and_can_be_left_out() -> None:
    with pytest.raises(ValueError, match=r"phase is torch\.complex64.*exclude='phase'.*requires_grad_\(False\)"):
        supple.SWR(Odd())
    model = Odd()
    method = supple.SWR(
        model, exclude="phase", frequency=1, factor=9.0, utility="magnitude", initial={"weight": supple.Normal(0, 1)}
    )
    method.step()
    assert int(method.reinitialized.total) == 90
    assert set(method.parameters) == {"weight"}


def test_sparse_gradients_are_refused_by_name() -> None:
    model = nn.Sequential(nn.Embedding(30, 4, sparse=True), nn.Linear(4, 2))
    model(torch.tensor([1, 2])).sum().backward()
    for frequency in (1, 1000):
        method = supple.SWR(model, frequency=frequency)
        with pytest.raises(RuntimeError, match=r"gradient of 0\.weight is sparse.*sparse=False.*exclude"):
            method.step()
    supple.SWR(model, frequency=1, exclude=nn.Embedding).step()
    supple.SWR(model, frequency=1, utility="magnitude").step()


def test_a_model_on_several_devices_is_refused_by_name() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 2))
    model[1].to("meta")
    for make in (supple.SWR, supple.CBP, supple.L2):
        with pytest.raises(ValueError, match=r"several devices: 0\.weight on cpu, 1\.weight on meta.*include="):
            make(model)
    supple.L2(model, include="0.*").step()


def assigned(model: nn.Module) -> None:
    model.load_state_dict(network().state_dict(), assign=True)


def retyped(model: nn.Module) -> None:
    model.to(torch.float64)


def exchanged(model: nn.Module) -> None:
    model[0] = nn.Linear(6, 30)  # type: ignore[index]


REPLACED = [
    (assigned, r"parameters were replaced .*\(0\.weight\).*load without assign"),
    (retyped, r"0\.weight was torch\.float32 on cpu .* is torch\.float64 on cpu now; .* after model\.to"),
    (exchanged, "module 0 of the model was replaced"),
]


@pytest.mark.parametrize(("replace", "message"), REPLACED)
def test_parameters_replaced_later_are_noticed_at_the_next_step(replace: Any, message: str) -> None:
    for make in (supple.L2, supple.SWR, supple.CBP):
        model = network()
        method = make(model)
        model(torch.ones(2, 6)).sum().backward()
        method.step()
        replace(model)
        with pytest.raises(RuntimeError, match=message):
            method.step()
        assert method.steps == 1


def test_loading_values_into_the_parameters_is_no_replacement() -> None:
    model = network()
    method = supple.L2(model)
    model.load_state_dict(network().state_dict())
    model.to(torch.float32)
    method.step()


def test_an_optimizer_without_the_parameters_is_refused() -> None:
    model = network()
    optimizer = torch.optim.SGD(network().parameters(), lr=0.1)
    with pytest.raises(ValueError, match=r"holds no parameter of this Sequential.*made after the model"):
        supple.SWR(model, optimizer)
    optimizer.add_param_group({"params": model[0].parameters()})
    supple.SWR(model, optimizer)
    with pytest.raises(ValueError, match=r"2\.weight: .* is not in the SGD"):
        supple.SWR(model, optimizer, optimizer_state="fresh")


def test_a_step_at_the_wrong_place_is_noticed_at_once() -> None:
    model = network()
    method = supple.SWR(model, frequency=1000)
    with pytest.raises(RuntimeError, match=r"no gradient: call step\(\) after backward\(\) and before"):
        method.step()
    model(torch.ones(2, 6)).sum().backward()
    model.zero_grad(set_to_none=True)
    with pytest.raises(RuntimeError, match="no gradient"):
        supple.SWR(model, frequency=1000).step()


def test_flattened_parameters_are_refused() -> None:
    class FullyShardedDataParallel(nn.Linear):
        """Stands for PyTorch's class of that name, which needs an accelerator."""

    with pytest.raises(
        ValueError, match=r"model is a FullyShardedDataParallel.* use torch\.distributed\.fsdp\.fully_shard"
    ):
        supple.SWR(FullyShardedDataParallel(2, 2))
