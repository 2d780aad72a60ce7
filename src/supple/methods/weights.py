"""One parameter of the replicas that are due: what the rule of a method reads of it, and writes into it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from supple.functional import random
from supple.functional.initial import Constant, center, draw
from supple.functional.rounding import HALF, precise_type
from supple.functional.sharding import gathered
from supple.functional.utility import lowest, precise
from supple.methods.arguments import frames_within
from supple.methods.base import Method
from supple.methods.when import ALL, Rows, replicas_at

T = TypeVar("T")

Place = tuple[Tensor, Tensor]
"""Some entries: the row of each, and its row-major index in the parameter or block, int64 [M] each."""

New = float | Tensor | Callable[[Place | None], Tensor | float]
"""New values: a number, a tensor [rows, ...], or what gives those at some places, or all where there are none."""

_ENTRIES = 1 << 18
"""How many entries are worked on at a time: few enough that what a rule makes of them takes little memory, many enough
that the calls take no time."""

_CACHED = 1 << 17
"""The same where a rule passes over them many times: few enough that several tensors of them stay in a core's cache."""

_FEW = 8
"""Up to one chosen entry in so many, looking the entries up is faster than going through all."""


class Weights:
    """One parameter of some replicas, at one moment.

    All tensors are [rows, ...]: the replicas that are due, and the parameter's shape; of a sharded parameter, the shape
    of the block that this process holds. Of large parameters a rule may be given some outputs at a time.

    Args:
        method: the method that acts.
        name: the parameter.
        rows: which replicas.
        outputs: which entries of the parameter's first dimension.
        known: what :meth:`once` gave for other pieces of the parameter.

    Attributes:
        parameter: the parameter itself.
        value: the values, to read; :meth:`add` and :meth:`replace` write.
        block: where these entries lie in the whole parameter.
        distribution: what the parameter was initialized from, where the method has to know.
    """

    def __init__(
        self, method: Method, name: str, rows: Rows = ALL, outputs: slice = ALL, known: dict[Any, Any] | None = None
    ) -> None:
        self.method, self.name, self.rows, self.outputs = method, name, rows, outputs
        self._known = {} if known is None else known
        self.parameter, self.block = method.parameters[name], method.blocks[name]
        self.distribution: Any = method.distributions.get(name)
        self.value = self.of(method.stack(self.parameter))

    def once(self, work: Callable[[Weights], T]) -> T:
        """Works something out at the first piece of a parameter that a rule is given, and gives it again at the others.

        Args:
            work: what does it, a method.

        Returns:
            What it gave.
        """
        if work not in self._known:
            self._known[work] = work(self)
        return self._known[work]

    def of(self, tensor: Tensor) -> Tensor:
        """Takes these replicas and outputs of a tensor.

        Args:
            tensor: [R, ...], like the parameter; or [R].

        Returns:
            [rows, ...], a view where the rows are a slice.
        """
        tensor = self.cut(tensor)
        return tensor if self.rows is ALL else tensor[self.rows]

    def cut(self, tensor: Tensor) -> Tensor:
        """Takes these outputs of a tensor with other rows.

        Args:
            tensor: like the parameter, or of one dimension.

        Returns:
            A view.
        """
        return tensor if self.outputs is ALL or tensor.ndim < 2 else tensor[:, self.outputs]

    @property
    def grad(self) -> Tensor:
        """The gradient; a RuntimeError if there is none, or it is sparse."""
        gradient, name = self.parameter.grad, type(self.method).__name__
        if gradient is None:
            raise RuntimeError(
                f"{name} needs the gradient of {self.name}, which is None. Call step() after backward() and before "
                "optimizer.zero_grad()"
            )
        if gradient.layout != torch.strided:
            raise RuntimeError(
                f"the gradient of {self.name} is sparse, which {name} cannot read; make the layer with sparse=False, "
                "leave it out with exclude=... where the method has it, or choose a utility that reads no gradients"
            )
        placements = self.block.placements
        if placements and gradient.placements != placements:  # type: ignore[attr-defined]
            gradient = gradient.redistribute(placements=placements)  # type: ignore[attr-defined]
        return self.of(self.method.stack(gradient))

    def add_to_gradient(self, tensor: Tensor, factor: Tensor) -> None:
        """Adds tensor * factor to the gradient, before the optimizer's step.

        Args:
            tensor: [rows, ...].
            factor: [rows, 1, ...], or [1, 1, ...].
        """
        gradient = self.grad
        gradient.addcmul_(tensor, factor)
        if not isinstance(self.rows, slice):
            assert self.parameter.grad is not None
            self.cut(self.method.stack(self.parameter.grad))[self.rows] = gradient

    def kept(self, kind: str) -> Tensor:
        """Gives a tensor that the method keeps of the parameter.

        Args:
            kind: its name in ``method.kept``.

        Returns:
            A view where the rows are a slice.
        """
        return self.of(self.method.kept[kind][self.name])

    def each(self, setting: Tensor) -> Tensor:
        """Shapes a setting so that it multiplies the weights of its replica.

        Args:
            setting: [R], on the parameter's device, or a number for all.

        Returns:
            [rows, 1, ...]; of numbers in the precision in which the parameter is worked with.
        """
        setting = setting[self.rows].view(-1, *(1,) * len(self.block.shape))
        return setting.to(precise_type(self.value.dtype)) if setting.is_floating_point() else setting

    def uniform(self, purpose: str) -> Tensor:
        """Draws a uniform random number for each entry, a function of seed, purpose, step and index.

        Args:
            purpose: what the numbers are for.

        Returns:
            float32 [rows, ...] in (0, 1).
        """
        seed, key = self.method.seed[self.rows], random.purpose(*self.method.moment, purpose, self.name)
        time = self.method.time
        if self.block.mesh is None:
            return random.uniform(seed, key, time, self.block.whole.numel()).view(-1, *self.block.whole)
        index = self.block.every_index(seed.device).unsqueeze(0)
        return random.uniform_at(seed.view(-1, *(1,) * (index.ndim - 1)), key, time, index)

    def chance(self, purpose: str) -> Tensor:
        """Draws one uniform random number a replica.

        Args:
            purpose: what the numbers are for.

        Returns:
            float32 [rows] in (0, 1).
        """
        seed, key = self.method.seed[self.rows], random.purpose(*self.method.moment, purpose, self.name)
        return random.uniform(seed, key, self.method.time, 1)[:, 0]

    def mean(self, utility: Tensor) -> Tensor:
        """Means over the whole parameter, also where it is sharded; not finite where one utility is not.

        Args:
            utility: [rows, ...].

        Returns:
            [rows].
        """
        flat = utility.reshape(len(utility), -1)
        if self.block.mesh is None:
            return flat.mean(dim=1)
        return self.block.total(flat.sum(dim=1)) / self.block.whole.numel()

    def whole(self, tensor: Tensor) -> Tensor:
        """Gathers the whole of a tensor like the parameter, where this process holds a block of it.

        Args:
            tensor: [rows, ...].

        Returns:
            [rows, ...] with the shape of the whole parameter.
        """
        return gathered(self.block.join(tensor))

    def part(self, whole: Tensor) -> Tensor:
        """Takes the block that this process holds out of a whole tensor.

        Args:
            whole: [rows, ...] with the shape of the whole parameter.

        Returns:
            [rows, ...], a view.
        """
        return whole if self.block.mesh is None else self.block.of(whole, leading=1)

    def norm(self, tensor: Tensor) -> Tensor:
        """Works out the Frobenius norm of each replica, also where the parameter is sharded.

        Args:
            tensor: [rows, ...].

        Returns:
            [rows].
        """
        norms = torch.linalg.vector_norm(tensor.reshape(len(tensor), -1), dim=1)
        return norms if self.block.mesh is None else self.block.total(norms.square()).sqrt()

    def lowest(self, utility: Tensor, count: Tensor) -> Tensor:
        """Finds the lowest utilities of the whole parameter, also where it is sharded; equal ones by random words.

        Args:
            utility: [rows, ...].
            count: int64 [rows], how many.

        Returns:
            bool [rows, ...].
        """
        # Which entries are the lowest shows only when all are seen together.
        whole = self.whole(utility).reshape(len(count), -1)
        key, size = random.purpose(*self.method.moment, "ties", self.name), whole.shape[1]
        seed, time = self.method.seed[self.rows], self.method.time
        chosen = lowest(whole, count, lambda rows: random.words(seed[rows], key, time, size))
        return self.part(chosen.view(len(chosen), *self.block.whole))

    def draw(self, place: Place | None = None) -> Tensor | float:
        """Draws fresh values from the parameter's initial distribution.

        An entry's value is a function of its index in the whole parameter, so it does not matter which are asked for.

        Args:
            place: the entries; None: all.

        Returns:
            float32 [M], or [rows, ...]; the number itself where the parameter starts from a constant.
        """
        if isinstance(self.distribution, Constant):
            return self.distribution.value
        return draw(self.distribution, lambda: self._places(place), lambda: self._probability(place))

    def center(self, place: Place | None = None) -> Tensor | float:
        """Gives what entries start from on average.

        Args:
            place: the entries; None: all.

        Returns:
            float32 [M], or of a shape that broadcasts with [rows, ...]; one number where all entries have the same.
        """
        return center(self.distribution, lambda: self._places(place))

    def _places(self, place: Place | None) -> tuple[Tensor, Tensor]:
        """Row-major index of entries in the whole parameter, and their replicas."""
        every = self.block.every_index(self.value.device)
        if place is not None:
            return every.flatten()[place[1]], replicas_at(self.rows, place[0])
        rows = torch.arange(len(self.value), device=self.value.device).view(-1, *(1,) * every.ndim)
        return every, replicas_at(self.rows, rows)

    def _probability(self, place: Place | None) -> Tensor:
        """The random number of each entry that is drawn again."""
        if place is None:
            return self.uniform("resample")
        rows, index = place
        if self.block.mesh is not None:
            index = self.block.every_index(index.device).flatten()[index]
        seed, key = self.method.seed[self.rows][rows], random.purpose(*self.method.moment, "resample", self.name)
        return random.uniform_at(seed, key, self.method.time, index)

    def add(self, tensor: Tensor, factor: Tensor, purpose: str) -> None:
        """Adds tensor * factor to the values.

        In half precision, where a small change would be rounded away, each sum is rounded by chance and right on
        average: see :func:`supple.functional.rounding.add_by_chance`.

        Args:
            tensor: [rows, ...], in the type of the values, or float32 where they are in half precision.
            factor: [rows, 1, ...], or [1, 1, ...], in the same type.
            purpose: what is done, for the random numbers; a method that adds twice in one step says two things.
        """
        if self.value.dtype in HALF:
            self.method.chances.add(self, tensor, factor, purpose)
        elif isinstance(self.rows, slice):
            self.value.addcmul_(tensor, factor)
        else:
            self.cut(self.method.stack(self.parameter)).index_add_(0, self.rows, tensor * factor)

    def set(self, new: Tensor) -> None:
        """Gives all entries new values, which follow from the old ones; a frozen parameter stays as it is.

        Where the change is small it is rounded in half precision as :meth:`add` does.

        Args:
            new: [rows, ...], at least float32; may be ``precise(value)``, changed in place.
        """
        if not self.parameter.requires_grad:
            return
        if self.value.dtype in HALF:
            change = new - precise(self.value)
            self.add(change, change.new_ones(1).view(-1, *(1,) * (change.ndim - 1)), "set")
        elif new is not self.value or not isinstance(self.rows, slice):
            self.cut(self.method.stack(self.parameter))[self.rows] = new.to(self.parameter.dtype)

    def replace(self, chosen: Tensor, new: New) -> None:
        """Gives chosen entries new values, and fresh optimizer state where asked for, and counts them.

        A parameter that has been frozen stays as it is, and so does the row of an embedding that stands for padding.

        Args:
            chosen: bool [rows, ...]; written into.
            new: the new values.
        """
        method, block = self.method, self.block
        if not method.replaces:
            raise TypeError(f"{type(method).__name__} replaces values, so its class has to say replaces = True")
        if not self.parameter.requires_grad:
            return
        fixed = method.fixed_rows.get(self.name)
        if fixed is not None and 0 <= fixed - block.offset[0] < block.shape[0]:
            chosen[:, fixed - block.offset[0]] = False
        number = chosen.reshape(len(chosen), -1).sum(dim=1)
        method.count(number if block.mesh is None else block.total(number), self.rows)
        weight = method.stack(self.parameter)
        states = []
        for state, *line, mean in method.memory.entries(self.parameter) if method.memory else ():
            state = method.stack(state)
            if mean:
                line[0] = self._mean_of_others(state, chosen, line[0])
            states.append((state, *line))
        # On a CPU few entries are looked up; elsewhere their number would have to be waited for.
        few = weight.device.type == "cpu" and (count := int(number.sum())) * _FEW < chosen.numel()
        if few and not count:
            return
        flat = weight.is_contiguous()
        for state, *_ in states:
            flat = flat and state.is_contiguous()
        if few and flat:
            place = torch.where(chosen.reshape(len(chosen), -1))
            if callable(new):
                new = new((place[0], place[1]))
            elif isinstance(new, Tensor):
                new = new.expand_as(chosen).reshape(len(chosen), -1)[place]
            values = new.to(weight.dtype) if isinstance(new, Tensor) else weight.new_tensor(new)
            replica = torch.arange(len(weight))[self.rows][place[0]]
            weight.view(len(weight), -1)[replica, place[1]] = values
            for state, offset, slope in states:
                fresh = offset[replica] + slope[replica] * values
                state.view(len(state), -1)[replica, place[1]] = fresh.to(state.dtype)
            return
        new = new(None) if callable(new) else new
        values = torch.where(chosen, new.to(weight.dtype) if isinstance(new, Tensor) else new, self.value)
        weight[self.rows] = values
        for state, offset, slope in states:
            fresh = self.each(offset) + self.each(slope) * values
            state[self.rows] = torch.where(chosen, fresh.to(state.dtype), state[self.rows])

    def _mean_of_others(self, state: Tensor, chosen: Tensor, fresh: Tensor) -> Tensor:
        """The mean of what the optimizer remembers of the entries that are not chosen, [R]; fresh where all are."""
        kept = (~chosen).reshape(len(chosen), -1)
        sums = (precise(state[self.rows]).reshape(len(chosen), -1) * kept).sum(dim=1)
        counts = kept.sum(dim=1)
        if self.block.mesh is not None:
            sums, counts = self.block.total(sums), self.block.total(counts)
        means = fresh.to(sums.dtype).clone()
        means[self.rows] = torch.where(counts > 0, sums / counts.clamp(min=1), means[self.rows])
        return means


class WeightMethod(Method):
    """A method with a rule for one parameter of the replicas that are due.

    A method of one's own writes :meth:`rule`, :meth:`rule_before_step` or :meth:`rule_at_boundary`. They are not called
    for parameters that are frozen at the time. One that keeps something of each parameter writes :meth:`keep`, and
    calls :meth:`take_up` at the end of its constructor. If that has to be what it was when the method was made, the
    method sets ``takes_up`` to False: then it acts on those only that train when it is made.
    """

    takes_up = True
    pieces: Literal["", "replicas", "outputs"] = ""
    """What the rules may be given of a large parameter at a time, so that the tensors they make stay in the cache.

    "": all of it, where they make none. "replicas": some of them, as where new values are made. "outputs": also some
    outputs of one, if the rules act on each entry by itself.
    """

    def keep(self, w: Weights) -> dict[str, Tensor]:
        """Works out what is kept of one parameter, before it is acted on for the first time.

        Returns:
            By kind a tensor [R, ...] that :meth:`Weights.kept` gives from then on; it is saved and loaded.
        """
        return {}

    def take_up(self) -> None:
        """Keeps what :meth:`keep` says of each parameter that trains and of which nothing is kept yet."""
        self._take_up([name for name in self._waiting if self.parameters[name].requires_grad])

    def _take_up(self, names: Collection[str]) -> None:
        if names:
            self._waiting = [name for name in self._waiting if name not in names]
        for name in names:
            for kind, tensor in self.keep(Weights(self, name)).items():
                self.kept.setdefault(kind, {})[name] = tensor

    def rule(self, w: Weights) -> None:
        """Acts on one parameter after the optimizer's step."""

    def rule_before_step(self, w: Weights) -> None:
        """Adds to the gradient of one parameter, before the optimizer's step."""

    def rule_at_boundary(self, w: Weights) -> None:
        """Acts on one parameter where the data changes."""

    def rest(self, w: Weights) -> None:
        """Takes note that a parameter has no gradient in a step in which the rule was to act on it."""

    def watch(self, w: Weights) -> None:
        """Looks at one parameter of all replicas at every step, before the rule, where ``watches`` is set."""

    @property
    def acts_before_step(self) -> bool:
        """Whether :meth:`before_step` does something."""
        return type(self).rule_before_step is not WeightMethod.rule_before_step

    @property
    def acts_at_boundary(self) -> bool:
        """Whether :meth:`boundary` does something."""
        return type(self).rule_at_boundary is not WeightMethod.rule_at_boundary

    def only_matrices(self) -> None:
        """Leaves out parameters of fewer than two dimensions, as of a layer that ``include`` names; in a constructor.

        Raises:
            ValueError: if nothing is left.
        """
        kept = {name: p for name, p in self.parameters.items() if p.ndim - self.stacked > 1}
        if not any(parameter.requires_grad for parameter in kept.values()):
            names = [name for name, parameter in self.parameters.items() if parameter.requires_grad]
            raise ValueError(
                f"{type(self).__name__} acts on weight matrices, and {', '.join(names)} have fewer than two dimensions"
            )
        self.parameters = kept

    def _act(self) -> None:
        if self._waiting:
            self.take_up()
        if not self.watches and type(self).rule is WeightMethod.rule:
            return
        rows = self.when.rows(self.steps)
        # Whoever calls step() at the wrong place hears of it at the first step, not when the first one is due.
        first = self.reads_gradients and not self._saw_gradients and not self.stacked
        if rows is not None or self.watches or first:
            self._each(self.rule, rows, self.reads_gradients)

    def _act_before_step(self) -> None:
        if self._waiting:
            self.take_up()
        if self.acts_before_step:
            self._each(self.rule_before_step, self.when.rows(self.steps + 1), True)

    def _act_at_boundary(self) -> None:
        self._each(self.rule_at_boundary, ALL, False)

    def _each(self, rule: Callable[[Weights], None], rows: Rows | None, gradients: bool) -> None:
        """Lets a rule act on each parameter that trains; where it needs gradients, on those that have one."""
        names, resting = [], []
        for name, parameter in self.parameters.items():
            if not parameter.requires_grad:
                continue
            if not gradients or parameter.grad is not None:
                names.append(name)
            else:
                resting.append(name)
        if gradients and (names or resting):
            if not names:
                raise RuntimeError(
                    f"{type(self).__name__} found no gradient: call step() after backward() and before "
                    "optimizer.zero_grad()"
                )
            if not self._saw_gradients:
                self._check_gradients(names)
        if rows is not None and rule == self.rule:
            for name in resting:
                self.rest(Weights(self, name, rows))
        for name in names:
            if self.watches and rule == self.rule:
                self.watch(Weights(self, name, ALL))
            if rows is None:
                continue
            parameter, copies = self.parameters[name], []
            if self.memory is not None and not self.replaces and rule != self.rule_before_step:
                copies = self.memory.copies(parameter)
            before = self.stack(parameter).clone() if copies else None
            for w in self._pieces(name, rows):
                rule(w)
            if before is not None:  # copies of the weights that the optimizer keeps move along
                change = self.stack(parameter) - before
                for copy in copies:
                    self.stack(copy).add_(change)

    def _pieces(self, name: str, rows: Rows) -> Iterator[Weights]:
        """Gives one parameter in pieces of some replicas or, where a replica's is large, some outputs of one.

        How the outputs are cut does not depend on the other replicas.
        """
        parameter = self.parameters[name]
        size = max(1, parameter.numel() // self.replicas)
        pieces = self.pieces if self.device.type == "cpu" and parameter.dtype not in HALF else ""
        most = _CACHED if pieces == "outputs" else _ENTRIES
        if not (pieces or self.replaces) or size * self.replicas <= most:
            yield Weights(self, name, rows)
            return
        known: dict[Any, Any] = {}
        outputs, cut = self.blocks[name].shape[:1].numel(), [ALL]
        if pieces == "outputs" and not self.sharded and size > most:
            length = max(1, most * outputs // size)
            cut = [slice(start, start + length) for start in range(0, outputs, length)]
        replicas, height = range(self.replicas)[rows] if isinstance(rows, slice) else rows, max(1, most // size)
        for start in range(0, len(replicas), height):
            some = replicas[start : start + height]
            part = slice(some.start, some.stop, some.step) if isinstance(some, range) else some
            for one in cut:
                yield Weights(self, name, part, one, known)

    def _check_gradients(self, names: list[str]) -> None:
        """Checks that gradients can be read and once, on a CPU, where it costs no waiting, that they are not all 0."""
        gradients = [Weights(self, name, ALL).grad for name in names]
        self._saw_gradients = True
        if self.stacked or self.device.type != "cpu" or self.sharded or not self.reads_gradients:
            return
        if not any(bool(gradient.any()) for gradient in gradients):
            warnings.warn(
                f"{type(self).__name__} found only gradients of 0, so that every utility is 0. Call step() before "
                "optimizer.zero_grad(), also with set_to_none=False",
                UserWarning,
                stacklevel=frames_within(),
            )
