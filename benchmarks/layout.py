"""Measures how stacked layers are best laid out in memory.

Weights are stored [R, out, in] or [R, in, out], activations [R, B, h] or [R, h, B]. Two tables are printed. The first
has the three products of a hidden layer (forward, input gradient, weight gradient), each as the batched product that
its layout allows without a copy. The second has whole training steps of a 784-h-h-h-10 network (forward, backward,
gradient descent). Layouts are measured in turns, several times over, and the median counts, so that a busy moment of
the machine falls on all of them.

    python benchmarks/layout.py --hidden 10 100 --replicas 64 --threads 1
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.benchmark import Compare, Measurement, Timer

Layer = Callable[[Tensor, Tensor, Tensor], Tensor]


def products(hidden: int, replicas: int, batch: int, device: str) -> dict[str, Callable[[], object]]:
    """The products of a hidden layer, by "product, weights, activations"."""
    w = torch.randn(replicas, hidden, hidden, device=device)
    x_bh, dy_bh = (torch.randn(replicas, batch, hidden, device=device) for _ in range(2))
    x_hb, dy_hb = (torch.randn(replicas, hidden, batch, device=device) for _ in range(2))
    bias = torch.randn(replicas, hidden, device=device)
    row, column = bias.unsqueeze(1), bias.unsqueeze(2)
    return {
        "forward baddbmm, [R,out,in], [R,B,h]": lambda: torch.baddbmm(row, x_bh, w.mT),
        "forward baddbmm, [R,in,out], [R,B,h]": lambda: torch.baddbmm(row, x_bh, w),
        "forward baddbmm, [R,out,in], [R,h,B]": lambda: torch.baddbmm(column, w, x_hb),
        "forward baddbmm, [R,in,out], [R,h,B]": lambda: torch.baddbmm(column, w.mT, x_hb),
        "forward bmm + bias, [R,out,in], [R,B,h]": lambda: torch.bmm(x_bh, w.mT) + row,
        "forward bmm + bias, [R,out,in], [R,h,B]": lambda: torch.bmm(w, x_hb) + column,
        "forward einsum + bias, [R,out,in], [R,B,h]": lambda: torch.einsum("rbi,roi->rbo", x_bh, w) + row,
        "forward einsum + bias, [R,out,in], [R,h,B]": lambda: torch.einsum("roi,rib->rob", w, x_hb) + column,
        "input gradient, [R,out,in], [R,B,h]": lambda: torch.bmm(dy_bh, w),
        "input gradient, [R,in,out], [R,B,h]": lambda: torch.bmm(dy_bh, w.mT),
        "input gradient, [R,out,in], [R,h,B]": lambda: torch.bmm(w.mT, dy_hb),
        "input gradient, [R,in,out], [R,h,B]": lambda: torch.bmm(w, dy_hb),
        "weight gradient, [R,out,in], [R,B,h]": lambda: torch.bmm(dy_bh.mT, x_bh),
        "weight gradient, [R,in,out], [R,B,h]": lambda: torch.bmm(x_bh.mT, dy_bh),
        "weight gradient, [R,out,in], [R,h,B]": lambda: torch.bmm(dy_hb, x_hb.mT),
        "weight gradient, [R,in,out], [R,h,B]": lambda: torch.bmm(x_hb, dy_hb.mT),
    }


class _OwnGradient(torch.autograd.Function):
    """Activations [R, B, h] times weights [R, out, in], whose weight gradient is computed in the weight's own order."""

    @staticmethod
    def forward(ctx, x, w, b):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x, w)
        return torch.baddbmm(b.unsqueeze(1), x, w.mT)

    @staticmethod
    def backward(ctx, dy):  # type: ignore[no-untyped-def]
        x, w = ctx.saved_tensors
        return torch.bmm(dy, w) if ctx.needs_input_grad[0] else None, torch.bmm(dy.mT, x), dy.sum(1)


# Name: (whether weights are stored [R, in, out], the layer from [R, B, in] to [R, B, out]).
LAYERS: dict[str, tuple[bool, Layer]] = {
    "[R,out,in], [R,B,h]": (False, lambda x, w, b: torch.baddbmm(b.unsqueeze(1), x, w.mT)),
    "[R,out,in], [R,B,h], einsum": (False, lambda x, w, b: torch.einsum("rbi,roi->rbo", x, w) + b.unsqueeze(1)),
    "[R,out,in], [R,B,h], own backward": (False, _OwnGradient.apply),
    "[R,out,in], [R,h,B]": (False, lambda x, w, b: torch.baddbmm(b.unsqueeze(2), w, x.mT).mT),
    "[R,in,out], [R,B,h]": (True, lambda x, w, b: torch.baddbmm(b.unsqueeze(1), x, w)),
    "[R,in,out], [R,h,B]": (True, lambda x, w, b: torch.baddbmm(b.unsqueeze(2), w.mT, x.mT).mT),
}


def steps(hidden: int, replicas: int, batch: int, device: str) -> dict[str, Callable[[], object]]:
    """Training steps of a 784-h-h-h-10 network, by layout."""
    sizes = [784, hidden, hidden, hidden, 10]
    x = torch.rand(replicas, batch, 784, device=device)
    y = torch.randint(10, (replicas, batch), device=device)

    def make(transposed: bool, layer: Layer) -> Callable[[], None]:
        weights = [torch.randn(replicas, o, i, device=device) * (2 / i) ** 0.5 for i, o in pairwise(sizes)]
        weights = [(w.mT.contiguous() if transposed else w).requires_grad_() for w in weights]
        biases = [torch.zeros(replicas, o, device=device, requires_grad=True) for o in sizes[1:]]
        parameters = [*weights, *biases]

        def step() -> None:
            for parameter in parameters:
                parameter.grad = None
            z = x
            for number, (w, b) in enumerate(zip(weights, biases, strict=True)):
                z = layer(z if number == 0 else torch.relu(z), w, b)
            (cross_entropy(z.flatten(0, 1), y.flatten(), reduction="sum") / batch).backward()
            with torch.no_grad():
                torch._foreach_add_(parameters, [parameter.grad for parameter in parameters], alpha=-0.01)

        return step

    return {name: make(*layout) for name, layout in LAYERS.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--hidden", type=int, nargs="+", default=[10, 100, 1000], help="units a layer (default: %(default)s)"
    )
    parser.add_argument("--replicas", type=int, nargs="+", default=[8, 64], help="networks (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=30, help="examples a step (default: %(default)s)")
    parser.add_argument(
        "--repeats", type=int, default=7, help="turns, of which the median counts (default: %(default)s)"
    )
    parser.add_argument("--seconds", type=float, default=0.05, help="time of one turn (default: %(default)s)")
    parser.add_argument("--threads", type=int, help="threads a product (default: torch's own choice)")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="where (default: %(default)s)")
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {options.device}, batch {options.batch}")
    for label, make in (("products of a hidden layer", products), ("training steps of 784-h-h-h-10", steps)):
        found: list[Measurement] = []
        for hidden in options.hidden:
            for replicas in options.replicas:
                timers = [
                    Timer(
                        "case()",
                        globals={"case": case},
                        label=label,
                        sub_label=name,
                        description=f"h={hidden} R={replicas}",
                        num_threads=options.threads or torch.get_num_threads(),
                    )
                    for name, case in make(hidden, replicas, options.batch, options.device).items()
                ]
                for _ in range(options.repeats):
                    found += [timer.blocked_autorange(min_run_time=options.seconds) for timer in timers]
        Compare(found).print()


if __name__ == "__main__":
    main()
