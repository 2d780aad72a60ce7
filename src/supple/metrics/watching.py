"""Watching a network while it trains: what is known to go along with lost plasticity, as flat numbers."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from supple.methods.arguments import check_arguments, did_you_mean
from supple.methods.attaching import around_steps
from supple.methods.optimizer_parts import unwrapped_optimizer
from supple.metrics.loggers import History, writer
from supple.metrics.measuring import MEASURES, Measuring
from supple.metrics.shapes import SHAPES, UNKNOWN, Shape
from supple.metrics.unit_features import activation_shapes
from supple.structure.description import UnitGroup, Units, format_row
from supple.structure.find import units as find_units
from supple.structure.stacked import Stacked
from supple.structure.tracing.run import arguments_of
from supple.structure.tracing.watch import tensors_in
from supple.structure.wrapping import unwrapped


class Watch:
    """Measures a network at every so many steps of its optimizer, on the same batch each time, and writes it down.

    It measures right after the optimizer's step, in evaluation mode, when the gradients of the step are still there.
    The training does not notice: not one bit of the weights, the buffers or any random number is another than without.
    What a module keeps in ordinary attributes when it runs, such as a count of its calls, is not looked after. Of
    sharded networks every process has to make the same watch; give one of them the log.

    Numbers have names such as "plasticity/blocks.0.mlp/dormant", of a layer, and "plasticity/dormant", of all together.
    What each says, and when it misleads, is in docs/watching.md:

    - of hidden units, shares or means over a layer's: ``dormant``, ``dead``, ``saturated``, ``linearized``,
      ``sign_entropy``, ``grama``;
    - of their outputs: ``feature_rank``, ``effective_rank``, ``stable_rank``;
    - of weights, and of all parameters together: ``weight_magnitude``, ``distance`` (from the weights when this was
      made), ``update_ratio``, ``gradient_magnitude``, ``zero_gradients``; of weights ``spectral_norm``, and of
      normalizations ``scale_magnitude``.

    The formulas and sources are those of the functions in :mod:`supple.metrics`.

    Args:
        model: the network; what ``torch.compile`` or ``DistributedDataParallel`` made of it stands for it.
        example_or_units: an example of its input as for :func:`supple.units`, or the hidden units, as found there or
            written by hand; None: of a model that needs no example. With ``[]`` nothing is measured of units.
        optimizer: its optimizer, also as a trainer wraps it; None: only :meth:`measure` measures.
        every: steps of the optimizer from one measurement to the next, 1 or more.
        batch: the input on which units are measured, some hundred examples, given in the same way as an example; None:
            the example. A copy is kept. Take examples of the newest data, and the same throughout to compare over time.
        log: where numbers go: a function of the numbers (with a parameter ``step``, if it has one), a TensorBoard
            ``SummaryWriter``, a Weights & Biases run, the module ``mlflow``, a logger or Trainer of Lightning, a
            Trainer of transformers, an ``Accelerator``, the path of a .csv or .parquet file, or None: only
            :attr:`history`. If it fails training goes on, with one warning.
        measures: which of the above.
        thresholds: scores up to which units count as dormant, and as inactive by GraMa; of several each has a number,
            such as "dormant_0.025" and "dormant_0.1".
        activation: the activation function by name (relu, leaky_relu, elu, selu, tanh, sigmoid, silu, gelu, mish,
            softplus, hardswish, hardtanh) where it cannot be told from the operations that the model does, or a mapping
            of groups of units to names. Of what is not known only exactly 0 counts as saturated, and ``linearized`` and
            ``sign_entropy`` are left out.
        sample: of a layer's outputs, at most so many examples and positions are looked at, spread over all.
        prefix: how all names begin.

    Attributes:
        history: what was measured, a list of mappings with the ``step`` and the numbers by name; ``to_pandas()`` and
            ``to_polars()`` make frames of it.
        steps: steps of the optimizer since this was made.
        units: the hidden units.
        shapes: the activation function of each group of units.

    Raises:
        TypeError: if an argument is of another type.
        ValueError: if the optimizer is another model's, the units are not found, the model does not run on the batch in
            evaluation mode, or a setting is out of range; the message names it.

    Warns:
        UserWarning: the first time that measuring or the log fails while training.

    Example:
        >>> import torch, supple
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> watch = supple.watch(model, torch.randn(256, 4), optimizer=optimizer, every=10)
        >>> for step in range(20):
        ...     optimizer.zero_grad()
        ...     model(torch.randn(32, 4)).square().mean().backward()
        ...     optimizer.step()
        >>> [row["step"] for row in watch.history]
        [10, 20]
        >>> 0 <= watch.history[-1]["plasticity/0/dormant"] <= 1
        True
        >>> sorted(supple.watch(model, [], measures=["weight_magnitude"]).measure())
        ['plasticity/0/weight_magnitude', 'plasticity/2/weight_magnitude', 'plasticity/weight_magnitude']
    """

    def __init__(
        self,
        model: nn.Module,
        example_or_units: Any = None,
        *,
        optimizer: torch.optim.Optimizer | None = None,
        every: int = 1000,
        batch: Any = None,
        log: Any = None,
        measures: Iterable[str] = MEASURES,
        thresholds: float | Sequence[float] = 0.025,
        activation: str | Mapping[str, str] | None = None,
        sample: int = 2048,
        prefix: str = "plasticity",
    ) -> None:
        check_arguments(model, optimizer)
        self.model, _ = unwrapped(model)
        if isinstance(self.model, Stacked):
            raise ValueError("a stack is several networks; watch one of them: stack.replica(0)")
        for name, number in (("every", every), ("sample", sample)):
            if not isinstance(number, int) or number < 1:
                raise ValueError(f"{name} is {number!r}; it has to be a whole number, 1 or more")
        self.every, self.prefix, self.measures = every, prefix, _known(measures)
        self.thresholds = (thresholds,) if isinstance(thresholds, int | float) else tuple(thresholds)
        example: Any = None
        if isinstance(example_or_units, Units) or _is_list_of_groups(example_or_units):
            self.units = Units(example_or_units)
        else:
            example = example_or_units
            try:
                self.units = find_units(self.model, example)
            except ValueError as error:
                hint = "Of watch they are the second argument; [] watches without units: supple.watch(model, [])"
                raise ValueError(f"{error}. {hint}") from error
        self._example, self._batch = example, example if batch is None else batch
        if self._batch is None and len(self.units):
            raise ValueError("there is no batch to measure the units on; say batch=x, some hundred examples")
        if (given := [*tensors_in(self._batch)]) and not any(tensor.numel() for tensor in given):
            raise ValueError(f"there are no examples in the batch of {_sizes(self._batch)}; give some hundred")
        # A loader may use its memory again.
        self._inputs = tree_map_only(Tensor, lambda tensor: tensor.detach().clone(), arguments_of(self._batch))
        self.shapes = self._shapes(activation)
        self._write = None if log is None else writer(log, prefix)
        self._measuring = Measuring(
            self.model, self.units, self._call, self.shapes, self.measures, self.thresholds, sample
        )
        self.history, self.steps = History(), 0
        self._told: set[str] = set()
        self._before: dict[str, Tensor] = {}
        self._handles: list[Any] = []
        if optimizer is not None:
            self._handles = around_steps(unwrapped_optimizer(optimizer), self._before_step, self._after_step)

    def _call(self) -> None:
        inputs, keywords = self._inputs
        try:
            self.model(*inputs, **keywords)
        except Exception as error:
            kind, theirs, what = type(self.model).__name__, _sizes(self._batch), f"{type(error).__name__}: {error}"
            message = f"{kind} does not run in evaluation mode on the batch of {theirs}: {what}"
            if self._example is not None and theirs != _sizes(self._example):
                message += f". It did run on the example of {_sizes(self._example)}; give a batch of that kind"
            raise ValueError(message) from error

    def _shapes(self, activation: str | Mapping[str, str] | None) -> list[Shape]:
        named = dict.fromkeys((g.name for g in self.units), activation) if isinstance(activation, str) else activation
        named = dict(named or {})
        for group, name in named.items():
            if name not in SHAPES:
                raise ValueError(f"activation {name!r} is not known; it has to be one of {', '.join(SHAPES)}")
            if group not in (one.name for one in self.units):
                groups = ", ".join(one.name for one in self.units)
                raise ValueError(f"activation speaks of {group!r}, which is no group of units; there are {groups}")
        found = activation_shapes(self.model, self.units, self._call) if len(self.units) else []
        return [
            SHAPES[named[group.name]] if group.name in named else shape
            for group, shape in zip(self.units, found, strict=True)
        ]

    def _before_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        if (self.steps + 1) % self.every == 0:
            self._before = self._measuring.remembered("update_ratio")

    def _after_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        self.steps += 1
        if self.steps % self.every == 0:
            try:
                self.measure()
            except Exception as error:
                self._tell(f"measuring failed at step {self.steps}; training goes on", error)

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """Measures now, and writes it into the history and the log.

        Gradients are those that the parameters have now. ``update_ratio`` is known right after a step only, so it is
        left out when this is called by hand.

        Returns:
            Numbers by name.

        Raises:
            ValueError: if the model does not run on the batch any longer.
        """
        before, self._before = self._before, {}
        numbers = {
            "/".join(part for part in (self.prefix, layer, name) if part): number
            for layer, name, number in self._measuring.numbers(before)
        }
        together = [number.to(next(iter(numbers.values())).device, torch.float32) for number in numbers.values()]
        # One copy from the device for all of them.
        values = dict(zip(numbers, torch.stack(together).tolist() if together else [], strict=True))
        self.history.append({"step": self.steps, **values})
        if self._write is not None:
            try:
                self._write(values, self.steps)
            except Exception as error:
                what = f"the log failed at step {self.steps}; training goes on, and history has what is measured"
                self._tell(what, error)
        return values

    def _tell(self, what: str, error: Exception) -> None:
        """Warns of a failure, once of each kind."""
        kind = what.split(" at ")[0]
        if kind not in self._told:
            self._told.add(kind)
            message = f"{what}; this is said once: {type(error).__name__}: {error}"
            warnings.warn(message, UserWarning, stacklevel=4)

    def close(self) -> None:
        """Takes the hooks away; nothing is measured by itself any longer."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def state_dict(self) -> dict[str, Any]:
        """What to save to go on from a checkpoint: the steps, and the weights that distances are from."""
        return {"steps": self.steps, "initial": dict(self._measuring.initial)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from a saved state.

        Args:
            state: what :meth:`state_dict` gave.

        Raises:
            ValueError: if it is of another network.
        """
        saved, own = state["initial"], self._measuring.initial
        for name in sorted(own and own.keys() | saved.keys()):
            there, here = (one[name].shape[1] if name in one else 0 for one in (saved, own))
            if there != here:
                raise ValueError(f"the state is of another network: {name} has {there} entries in it, and {here} here")
        self.steps, self._measuring.initial = int(state["steps"]), dict(state["initial"])

    def __repr__(self) -> str:
        rows = [("layer", "units", "activation")]
        rows += [(g.name, str(g.size), shape.name) for g, shape in zip(self.units, self.shapes, strict=True)]
        when = f"every {self.every} steps" if self._handles else "by hand"
        unknown = UNKNOWN in self.shapes
        hint = "\nof an unknown activation linearized and sign_entropy are not measured: activation=..." * unknown
        lines = [format_row(row, rows) for row in rows if len(self.units)]
        return "\n".join([f"watch({type(self.model).__name__}), {when}, step {self.steps}", *lines]) + hint


watch = Watch


def _known(measures: Iterable[str]) -> tuple[str, ...]:
    chosen = (measures,) if isinstance(measures, str) else tuple(measures)
    for name in chosen:
        if name not in MEASURES:
            raise ValueError(
                f"there is no measure {name!r}.{did_you_mean(name, MEASURES)} There are {', '.join(MEASURES)}"
            )
    return chosen


def _is_list_of_groups(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(one, UnitGroup) for one in value)


def _sizes(example: Any) -> str:
    """The shapes of the tensors in an example, in words."""
    return "shape " + ", ".join(str(tuple(tensor.shape)) for tensor in tensors_in(example))
