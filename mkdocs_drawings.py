"""What each method does, drawn: the method acts on a small network, and lines lead from what was there to what it made.

A drawing is SVG in the colour of the text around it, so that it is read on a light and on a dark page, and without
colours. Nothing in it is drawn by hand: values are those of the network.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

import supple

Make = Callable[[nn.Module, torch.optim.Optimizer], supple.Method]


@dataclass
class Rows:
    """Rows of values on one axis, lines from each value to the same one in the next row."""

    names: Sequence[str]
    values: Sequence[Tensor]
    caption: str
    fresh: Tensor | None = None  # what was drawn anew for the last row
    sizes: Tensor | None = None
    marks: Sequence[float] = ()

    def svg(self) -> str:
        """The drawing."""
        most = 1.08 * max(float(row.abs().max()) for row in (*self.values, torch.tensor(self.marks or [0.0])))
        least = 0.0 if all(float(row.min()) >= 0 for row in self.values) else -most
        xs = [110 + 380 * (row.flatten() - least) / (most - least) for row in self.values]
        fresh = torch.zeros_like(xs[-1]) if self.fresh is None else self.fresh.flatten()
        sizes = torch.full_like(xs[0], 4.5) if self.sizes is None else _radii(self.sizes.flatten(), 2, 8)
        parts, last = [], len(xs) - 1
        for mark in (0.0, *self.marks):
            x = 110 + 380 * (mark - least) / (most - least)
            parts.append(_line(x, 18, x, 42 + 62 * last, 0.8, "2 3", 0.6))
            parts.append(_text(x, 60 + 62 * last, f"{mark:.3g}", "middle"))
        for k, (name, row) in enumerate(zip(self.names, xs, strict=True)):
            y = 30 + 62 * k
            parts.append(_text(0, y + 4, name))
            parts.append(_line(110, y, 490, y, 0.8, "", 0.35))
            for i, x in enumerate(row.tolist()):
                new = bool(fresh[i]) and k == last
                if k:
                    parts.append(_line(float(xs[k - 1][i]), y - 62, x, y, 1.2, "4 3" if new else "", 0.75))
                parts.append(_dot(x, y, 4.5 if new else float(sizes[i]), new))
        return _svg(500, 66 + 62 * last, parts, self.caption)


@dataclass
class Units:
    """A layer of hidden units before and after some were replaced: wide lines are large weights."""

    before: tuple[Tensor, Tensor]  # weights that make the units, and weights that read them
    after: tuple[Tensor, Tensor]
    sizes: Tensor
    replaced: Tensor
    caption: str

    def svg(self) -> str:
        """The drawing."""
        parts = []
        for left, title, (into, out), new in (
            (0, "before", self.before, torch.zeros_like(self.replaced)),
            (260, "after", self.after, self.replaced),
        ):
            parts.append(_text(left + 120, 14, title, "middle"))
            inputs, outputs = ([40 + 180 * (k + 0.5) / n for k in range(n)] for n in (into.shape[1], out.shape[0]))
            places = [40 + 180 * (k + 0.5) / len(into) for k in range(len(into))]
            for k, y in enumerate(places):
                for i, there in enumerate(inputs):
                    width = 3.5 * float(into[k, i].abs() / self.before[0].abs().max())
                    parts.append(_line(left + 20, there, left + 120, y, width, "4 3" if new[k] else "", 0.7))
                for i, there in enumerate(outputs):
                    width = 3.5 * float(out[i, k].abs() / self.before[1].abs().max())
                    parts.append(_line(left + 120, y, left + 220, there, width, "", 0.7) if width else "")
            radii = _radii(self.sizes, 3, 12)
            parts += [
                _dot(left + 120, y, 7.0 if new[k] else float(radii[k]), bool(new[k])) for k, y in enumerate(places)
            ]
            parts += [_dot(left + 20, y, 4, False) for y in inputs] + [_dot(left + 220, y, 4, False) for y in outputs]
        return _svg(500, 225, parts, self.caption)


class Acted:
    """What a method did to a network that was trained: whose weights have grown and moved."""

    def __init__(self, make: Make, width: int = 4, lr: float = 0.0, steps: int = 1) -> None:
        torch.manual_seed(3)
        self.model = model = nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, 3))
        self.first = model[0].weight.detach().clone()
        optimizer = torch.optim.SGD(model.parameters(), lr=lr)
        method = make(model, optimizer)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1.6).add_(0.3 * torch.randn_like(parameter))
            model[0].bias[3] -= 9.0 * (steps > 1)  # a unit that is silent
        self.weights = [model[k].weight.detach().clone() for k in (0, 2)]
        x, y = torch.randn(8, 3), torch.randn(8, 3)
        for _ in range(steps):
            optimizer.zero_grad()
            hidden = model[1](model[0](x))
            mse_loss(model[2](hidden), y).backward()
            self.outputs, self.gradient = hidden.detach(), model[0].weight.grad.clone()
            if lr:  # what the method adds to the gradient is all that is learned
                optimizer.zero_grad(set_to_none=False)
            method.before_step()
            optimizer.step()
            method.step()
            if method.acts_at_boundary:
                method.boundary()
        method.close()
        self.before, self.after = self.weights[0], model[0].weight.detach()
        self.changed = (self.before - self.after).abs() > 1e-6

    def rows(self, caption: str, **options: object) -> Rows:
        """The weights of the first layer, before and after."""
        return Rows(["before", "after"], [self.before, self.after], caption, **options)  # type: ignore[arg-type]

    def back(self, caption: str) -> Rows:
        """The same, and where the weights were at the start."""
        return Rows(["before", "after", "at the start"], [self.before, self.after, self.first], caption)

    def spectrum(self, caption: str, *marks: float) -> Rows:
        """The singular values of the first layer's weights, before and after."""
        values = [torch.linalg.svdvals(weight) for weight in (self.before, self.after)]
        return Rows(["before", "after"], values, caption, marks=marks)

    def units(self, caption: str, sizes: Tensor) -> Units:
        """The hidden layer, before and after."""
        after = (self.after, self.model[2].weight.detach())
        return Units((self.weights[0], self.weights[1]), after, sizes, self.changed.any(dim=1), caption)


def drawings() -> dict[str, Rows | Units]:
    """A drawing for each method of the package, by the name of its class."""
    swr = Acted(lambda *both: supple.SWR(*both, frequency=1, factor=0.3))
    cbp = Acted(lambda *both: supple.CBP(*both, maturity=0, replacement_rate=0.2), 6)
    redo = Acted(lambda *both: supple.ReDo(*both, frequency=1, threshold=0.3), 6)
    regrama = Acted(lambda *both: supple.ReGraMa(*both, frequency=1, threshold=0.3), 6)
    snr = Acted(lambda *both: supple.SNR(*both, threshold=16), 6, steps=2)
    cpr = Acted(lambda *both: supple.CPR(*both, frequency=1, replacement_rate=0.8, decay=0.0))
    return {
        "L2": Acted(lambda *both: supple.L2(*both, l2=0.4)).rows("All weights shrink by one factor."),
        "ShrinkAndPerturb": Acted(lambda *both: supple.ShrinkAndPerturb(*both, l2=0.3, variance=0.01)).rows(
            "All weights shrink by one factor, and each gets a little noise."
        ),
        "CBP": cbp.units(
            "The larger a unit is drawn, the more it contributes: mean |output| times mean |outgoing weight|. The "
            "least is replaced: weights into it are drawn anew, those out of it are 0.",
            cbp.outputs.abs().mean(dim=0) * cbp.weights[1].abs().mean(dim=0),
        ),
        "ReDo": redo.units(
            "The larger a unit is drawn, the larger its mean |output|. Units with little of it are replaced.",
            redo.outputs.abs().mean(dim=0),
        ),
        "SWR": swr.rows(
            "The larger a dot, the larger |w g|. Weights with little of it are drawn anew.",
            fresh=swr.changed,
            sizes=(swr.before * swr.gradient).abs(),
        ),
        "ReGraMa": regrama.units(
            "The larger a unit is drawn, the larger the gradients of the weights into it. Units with little of them "
            "are replaced.",
            regrama.gradient.abs().mean(dim=1),
        ),
        "SNR": snr.units(
            "The larger a unit is drawn, the more often it fires. One that is silent for longer than it used to be is "
            "replaced.",
            (snr.outputs > 0).float().mean(dim=0),
        ),
        "CPR": cpr.rows(
            "The larger a dot, the larger the gradients of its unit. All units move toward fresh ones; those that "
            "learn least, most.",
            sizes=cpr.gradient.abs().mean(dim=1, keepdim=True).expand(-1, 3),
        ),
        "L2Init": Acted(lambda *both: supple.L2Init(*both, strength=0.25), lr=1.0).back(
            "Each weight goes a part of the way back to its own value at the start."
        ),
        "Wasserstein": Acted(lambda *both: supple.Wasserstein(*both, strength=0.5), lr=1.0).back(
            "The k-th smallest weight goes toward the k-th smallest at the start, whichever weight that was."
        ),
        "WeightClipping": Acted(lambda *both: supple.WeightClipping(*both)).rows(
            "What lies beyond the bound of the initial distribution goes back to it.", marks=(-(3**-0.5), 3**-0.5)
        ),
        "NaP": Acted(lambda *both: supple.NaP(*both, last_layer=True)).spectrum(
            "Singular values of a weight matrix: all shrink by one factor, so that the norm is that of the start."
        ),
        "Isometry": Acted(lambda *both: supple.Isometry(*both, strength=0.05), lr=1.0).spectrum(
            "Singular values of a weight matrix: all go toward one value, at which lengths are kept.", 1.0
        ),
        "Parseval": Acted(lambda *both: supple.Parseval(*both, strength=0.02), lr=1.0).spectrum(
            "Singular values of a weight matrix: all go toward the root of scale, at which rows are orthogonal.", 2**0.5
        ),
        "Spectral": Acted(lambda *both: supple.Spectral(*both, strength=0.02, iterations=20), lr=1.0).spectrum(
            "Singular values of a weight matrix: the largest goes toward 1.", 1.0
        ),
        "FIRE": Acted(supple.FIRE).spectrum("Singular values of a weight matrix: all become equal."),
        "ShrinkAndRedraw": Acted(lambda *both: supple.ShrinkAndRedraw(*both, shrink=0.4, perturb=0.4)).rows(
            "All weights shrink by one factor, and a part of a fresh network is added."
        ),
        "DASH": _dash(),
        "HareAndTortoise": _hare(),
        "Reset": _reset(),
        "UPGD": _upgd(),
        "TRAC": _trac(),
        "CChain": _churn(),
        "InFeR": _infer(),
    }


def _dash() -> Rows:
    """Which weights point downhill shows as size."""
    x, y = torch.randn(64, 3), torch.randn(64, 3)
    one = Acted(
        lambda model, optimizer: supple.DASH(
            model, optimizer, batches=[(x, y)], loss=lambda model, batch: mse_loss(model(batch[0]), batch[1])
        )
    )
    return one.rows("Units whose weights point away from where the loss goes down shrink more than others.")


def _hare() -> Rows:
    model = nn.Linear(12, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    method = supple.HareAndTortoise(model, optimizer, momentum=0.9, interval=20)
    torch.manual_seed(0)
    for _ in range(20):
        optimizer.zero_grad()
        (model(torch.randn(12)) - torch.randn(1)).square().sum().backward()
        optimizer.step()
        before = model.weight.detach().clone()
        method.step()
    caption = "The weights that are trained go to their own moving average, where they learn on from."
    return Rows(["before", "after"], [before, model.weight.detach()], caption)


def _reset() -> Rows:
    one = Acted(lambda *both: supple.Reset(*both, layers=2))
    return one.rows("All weights of a layer are drawn anew.", fresh=one.changed)


def _upgd() -> Rows:
    torch.manual_seed(1)
    model = nn.Linear(12, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.linspace(-0.8, 0.8, 12))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    method = supple.UPGD(model, optimizer, std=0.05, decay=0.5)
    for step in range(8):  # utilities are known when it moves
        before = model.weight.detach().clone()
        optimizer.param_groups[0]["lr"] = 0.8 * (step == 7)
        optimizer.zero_grad()
        model(-torch.ones(12)).sum().backward()
        method.before_step()
        optimizer.step()
        method.step()
    caption = "The larger a dot, the more the loss would grow without the weight. Such weights move less."
    rows = [before + 0.8, before, model.weight.detach()]
    return Rows(["plain step", "before", "with UPGD"], rows, caption, sizes=before - before.min())


def _trac() -> Rows:
    torch.manual_seed(1)
    model = nn.Linear(12, 1, bias=False)
    plain, target = model.weight.detach().clone(), 0.6 * torch.randn(1, 12)
    start = plain.clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    method = supple.TRAC(model, optimizer)
    for _ in range(52):  # the factor is small at first
        plain -= 0.02 * 2 * (plain - target)
        optimizer.zero_grad()
        (model.weight - target).square().sum().backward()
        method.before_step()
        optimizer.step()
        method.step()
    caption = "All weights go as the optimizer would from their start, times one factor that is learned."
    return Rows(["plain", "start", "with TRAC"], [plain, start, model.weight.detach()], caption)


def _churn() -> Rows:
    caption = "Outputs on other examples than those that are learned: with the term of the loss they change less."
    return _penalized(
        lambda model: supple.CChain(model, strength=8.0, ratio=0.0), 10, lambda model, x: model(x), caption
    )


def _infer() -> Rows:
    caption = (
        "Singular values of the features on some examples, relative to the largest: with the term of the loss, "
        "directions that the task does not need stay."
    )

    def seen(model: nn.Sequential, x: Tensor) -> Tensor:
        found = torch.linalg.svdvals(model[:2](x))
        return found / found[0]

    return _penalized(lambda model: supple.InFeR(model, strength=0.5, heads=8, scale=10.0), 500, seen, caption)


def _penalized(
    make: Callable[[nn.Module], supple.CChain | supple.InFeR],
    steps: int,
    seen: Callable[[nn.Sequential, Tensor], Tensor],
    caption: str,
) -> Rows:
    """What is seen of some examples before a network learned from others, without a term of the loss and with it."""
    torch.manual_seed(0)
    x, y, others = torch.randn(16, 3), 2 * torch.randn(16, 1), torch.randn(12, 3)
    rows = []
    for learned, penalized in ((steps, False), (0, False), (steps, True)):
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1))
        method, optimizer = make(model), torch.optim.SGD(model.parameters(), lr=0.05)
        for _ in range(learned):
            optimizer.zero_grad()
            loss = mse_loss(model(x), y)
            (loss + method.penalty(others) if penalized else loss).backward()
            optimizer.step()
            method.step()
        rows.append(seen(model, others).detach())
    return Rows(["without", "start", "with the term"], rows, caption)


def _radii(sizes: Tensor, least: float, most: float) -> Tensor:
    """Radii of dots, whose areas are to each other as sizes, within bounds."""
    return (most * (sizes / sizes.max()).sqrt()).clamp(min=least)


def _dot(x: float, y: float, radius: float, hollow: bool) -> str:
    look = 'fill="none" stroke-width="1.6"' if hollow else 'fill="currentColor" fill-opacity="0.75" stroke="none"'
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" {look}/>'


def _line(x: float, y: float, there: float, end: float, width: float, dashes: str, opacity: float) -> str:
    return (
        f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{there:.1f}" y2="{end:.1f}" stroke-width="{width:.2f}" '
        f'stroke-dasharray="{dashes}" stroke-opacity="{opacity}"/>'
    )


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(width: int, height: int, parts: Sequence[str], caption: str) -> str:
    return (
        f'<svg class="drawing" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(caption)}" '
        f'stroke="currentColor">{"".join(parts)}</svg>'
    )
