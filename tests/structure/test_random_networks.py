"""Units found in random networks: once nothing leaves a unit, nothing that comes in may change the output."""

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from traced_checks import features

from supple.structure.tracing import trace

WIDTH = 4

# Of one tensor [B, T, WIDTH] each, to one of the same shape.
ONE = {
    "relu": torch.relu,
    "tanh": torch.tanh,
    "gelu by hand": lambda h: 0.5 * h * (1 + torch.tanh(h)),
    "in place": lambda h: h.clone().mul_(0.5).clamp_(min=-1),
    "softmax": lambda h: h.softmax(-1),
    "softmax over positions": lambda h: h.softmax(1),
    "centered": lambda h: h - h.mean(-1, keepdim=True),
    "centered over positions": lambda h: h - h.mean(1, keepdim=True),
    "normalized": lambda h: h / (h.norm(dim=1, keepdim=True) + 1),
    "heads": lambda h: h.view(2, 3, 2, 2).transpose(2, 3).reshape(2, 3, WIDTH),
    "turned": lambda h: h.transpose(1, 2).reshape(2 * WIDTH, 3).view(2, WIDTH, 3).permute(0, 2, 1),
    "rolled": lambda h: h.roll(1, -1),
    "shifted": lambda h: F.pad(h, (0, 0, 1, 0))[:, :-1],
    "written": lambda h: torch.zeros_like(h).copy_(h),
    "filled": lambda h: torch.cat([h[..., :1], torch.ones_like(h[..., 1:])], -1),
    "attention": lambda h: (h @ h.mT).softmax(-1) @ h,
    "swapped": lambda h: torch.cat(h.chunk(2, -1)[::-1], -1),
    "gated": lambda h: F.glu(torch.cat([h, h.flip(1)], -1)),
    "own gate": lambda h: F.glu(h).repeat(1, 1, 2),
    "twins": lambda h: torch.cat([h[..., :2].relu(), (-h[..., :2]).relu()], -1),
    "largest": lambda h: h.amax(1, keepdim=True).expand(-1, 3, -1),
    "first": lambda h: h[:, :1] * torch.ones(1, 3, 1),
    "kept": lambda h: h,
    "square": lambda h: h * h,
    "positive": lambda h: torch.where(h > 0, h, 0.1 * h),
}
TWO = {
    "add": torch.add,
    "mul": torch.mul,
    "maximum": torch.maximum,
    "choose": lambda a, b: torch.where(a > 0, a, b),
    "mask": lambda a, b: a.masked_fill(b > 0, 0.0),
    "halves": lambda a, b: torch.cat([a[..., :2], b[..., 2:]], -1),
    "positions": lambda a, b: torch.cat([a[:, :1], b[:, 1:]], 1),
    "scale": lambda a, b: a * b.mean((1, 2), keepdim=True),
    "scores": lambda a, b: a * torch.sigmoid(b[..., :1]),
    "modulated": lambda a, b: a * (1 + b) + b,
    "mixed": lambda a, b: torch.lerp(a, b, 0.3),
    "cut product": lambda a, b: torch.cat([(a * b)[..., :2], a[..., 2:]], -1),
    "length": lambda a, b: a * b.norm(dim=-1, keepdim=True),
}


class Random(nn.Module):
    """Applies a list of steps to earlier tensors and reads the last two."""

    def __init__(self, steps):
        super().__init__()
        self.steps = steps
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH, bias=k % 2 == 0) for k in range(len(steps)))
        self.head = nn.Linear(2 * WIDTH, 2)

    def forward(self, x):
        tensors = [x]
        for (kind, first, second), layer in zip(self.steps, self.layers, strict=True):
            a, b = tensors[first % len(tensors)], tensors[second % len(tensors)]
            if kind == "linear":
                tensors.append(layer(a))
            else:
                tensors.append(ONE[kind](a) if kind in ONE else TWO[kind](a, b))
        return self.head(torch.cat([tensors[-1], tensors[-2]], -1))


STEP = st.tuples(
    st.one_of(st.just("linear"), st.sampled_from([*ONE]), st.sampled_from([*TWO])),
    st.sampled_from([-1, -1, -1, -2, -3, 0]),
    st.sampled_from([-2, -1, -3, -4, 0]),
)


@settings(max_examples=60)
@given(st.lists(STEP, min_size=3, max_size=9))
@torch.no_grad()
def test_what_comes_into_a_unit_is_without_effect_once_nothing_leaves_it(steps):
    torch.manual_seed(0)
    model = Random([("linear", -1, 0), *steps]).double()
    example = torch.randn(2, 3, WIDTH, dtype=torch.float64)
    found = trace(model, example)
    for group in found:
        unit = group.size - 1
        start = {name: value.clone() for name, value in model.state_dict().items()}
        others = [*range(unit)]
        for consumer in group.consumers:
            consumer.weight.view(model.get_parameter(consumer.weight.tensor), group.size)[unit] = 0
        expected = model(example)
        seen = []
        handle = model.get_submodule(group.feature.module).register_forward_hook(
            lambda module, inputs, output, seen=seen, group=group: seen.append(
                group.feature.view(inputs[0] if group.feature.where == "input" else output, group.size).clone()
            )
        )
        model(example)
        for part in (*group.incoming, *group.bias):
            part.view(model.get_parameter(part.tensor), group.size)[unit] += 0.7
        torch.testing.assert_close(model(example), expected, rtol=1e-10, atol=1e-12)
        model(example)
        handle.remove()
        torch.testing.assert_close(seen[-1][others], seen[0][others], rtol=1e-10, atol=1e-12)
        model.load_state_dict(start)


# With these a unit is multiplied with something that is the same for all units, and may come from anywhere.
SHARED = {"scale", "scores", "length", "attention"}


@settings(max_examples=60)
@given(st.lists(STEP, min_size=3, max_size=9))
@torch.no_grad()
def test_nothing_of_the_input_is_in_a_unit_whose_incoming_weights_are_gone(steps):
    steps = [step for step in steps if step[0] not in SHARED]
    torch.manual_seed(0)
    model = Random([("linear", -1, 0), *steps]).double()
    example = torch.randn(2, 3, WIDTH, dtype=torch.float64)
    for group in trace(model, example):
        start = {name: value.clone() for name, value in model.state_dict().items()}
        for part in group.incoming:
            part.view(model.get_parameter(part.tensor), group.size)[0] = 0
        for part in group.bias:
            part.view(model.get_parameter(part.tensor), group.size)[0] = 0.7
        one, other = (features(model, group, example + shift)[0] for shift in (0.0, 1.0))
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
        model.load_state_dict(start)
