"""What every method shares: when it acts, on which parameters and replicas, what it counts, saves and checks."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Collection, Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn
from typing_extensions import Self

from supple.functional.initial import Distribution
from supple.functional.sharding import block_of, is_sharded, local
from supple.methods.adding import Chances
from supple.methods.arguments import (
    Selectors,
    check_arguments,
    choice,
    chosen_parameters,
    layers_from_last,
    one_a_replica,
    refuse_unknown,
)
from supple.methods.attaching import Attachment, saved_distributions
from supple.methods.optimizer_parts import GroupsByParameter, members, unwrapped_optimizer
from supple.methods.optimizer_state import OptimizerMemory, OptimizerState
from supple.methods.seeds import common_seed, note_first_step, processes
from supple.methods.settings import About, Settings
from supple.methods.state import State
from supple.methods.when import ALL, Every, Rows
from supple.structure.initial import initial_distributions
from supple.structure.overrides import Overrides
from supple.structure.rules import padding_rows
from supple.structure.stacked import Stacked
from supple.structure.wrapping import unwrapped

if TYPE_CHECKING:
    from supple.methods.features import FeatureReader


Required = Literal["distributions", "means", "nothing"]


class Needs(NamedTuple):
    """What the next step of a method reads of the training step before it.

    Attributes:
        gradients: whether it reads gradients.
        readers: what has to read features of the forward pass. Hooks do that where the model is called; a program that
            computes the forward pass in another way calls :meth:`supple.methods.features.FeatureReader.record`.
    """

    gradients: bool
    readers: list[FeatureReader]


class Method(Settings, State):
    """A method that acts on a network while it is trained.

    Call :meth:`step` after ``optimizer.step()`` and before the gradients are cleared. The network is an ordinary
    module, which is a population of one, or a :class:`supple.structure.Stacked` one, whose settings and seeds may
    differ by replica. Its parameters may be sharded by ``torch.distributed.fsdp.fully_shard``; then every process makes
    the same method and calls everything that it calls, together.

    A method of one's own is a :class:`supple.methods.weights.WeightMethod`, with a rule for one parameter, or a
    :class:`supple.methods.units.UnitMethod`, with a rule for one layer of hidden units. It states in its constructor
    its settings (:meth:`setting`) and, as ``self.when``, when it acts.

    Args:
        model: the network; what ``torch.compile`` or ``DistributedDataParallel`` made of it stands for it.
        optimizer: its optimizer, also as a trainer wraps it.
        include: which parameters it acts on: a name or pattern over names, a class of module (its direct parameters), a
            function of name and parameter, or several of these; None: all. Those that are frozen are left alone as long
            as they are.
        exclude: which of them it does not act on, given in the same way.
        initial: initial distributions by parameter name, pattern or module class, where they are not to be worked out;
            see :func:`supple.initial_distributions`. For methods that replace values.
        optimizer_state: what becomes of what the optimizer remembers of replaced entries. "keep" leaves it as it is;
            "fresh" makes it that of a new entry, with an age of its own; "mean" does the same, but gives it the second
            moment that the other entries have on average. The last two need the optimizer. None: for methods on hidden
            units the first of "fresh", "keep" and "mean" that does no harm to the optimizer's entries, for others the
            first of "keep", "fresh" and "mean"; "keep" without an optimizer. For methods that replace values.
        seed: seed of the method's random numbers, or one a replica; None: the stacked network's own seeds, and for an
            ordinary one a seed of the method's own, which follows from ``torch.manual_seed`` and from the order in
            which methods are made, is the same in all processes that train the network, and is saved with the state.

    Attributes:
        settings: its settings by name, as they were given.
        seed: its seeds, int64 [R].
        memory: what the optimizer remembers of replaced entries; None where nothing has to be done about it.
        when: in which replicas a step is due; every step in all of them if the constructor says nothing else.

    Raises:
        TypeError: if an argument is of another type.
        ValueError: if a setting is out of range, the initial distribution of a parameter is not known, or the optimizer
            is another model's; the message names it.
    """

    about: ClassVar[About]
    sharded = False
    _later: Iterable[str] = ()  # parameters that are frozen yet, whose distributions are kept if they are known
    takes_up = False
    """Whether what is frozen when it is made is acted on when it trains."""
    watches = False
    """Whether its ``watch`` looks at everything at every step, as for a moving average."""
    reads_gradients = True
    """Whether what it does after a step reads gradients; a program may leave out what nothing reads."""
    replaces = False
    """Whether it gives entries new values, rather than change all a little."""
    _process_group: Any = None
    loops_only = ""
    """What it needs that a study does not give it, such as batches of one's own."""
    knows_initial = False
    """Whether it has to know initial distributions though it replaces nothing."""
    treatments: tuple[str, ...] = ("keep", "fresh", "mean")
    """What becomes of what the optimizer remembers where nothing is said: the first that does no harm."""
    attachment: Attachment | None = None
    """What lets it act by itself, after :meth:`attach`."""
    reshapes = False
    """Whether it takes the optimizer's step anew, from the weights and gradients with which the step began."""
    required: Required = "distributions"
    """What a method that replaces has to know of initial values: of trained parameters only the means can be told."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        include: Selectors | None = None,
        exclude: Selectors | None = None,
        initial: Overrides | None = None,
        optimizer_state: OptimizerState | None = None,
        seed: int | Sequence[int] | Tensor | None = None,
        **unknown: Any,
    ) -> None:
        refuse_unknown(type(self), unknown)
        knows_initial = self.replaces or self.knows_initial
        if (initial is not None and not knows_initial) or (optimizer_state is not None and not self.replaces):
            meaningless = "optimizer_state" if knows_initial or initial is None else "initial"
            raise TypeError(f"{type(self).__name__} replaces nothing, so {meaningless} means nothing; leave it out")
        check_arguments(model, optimizer)
        model, data_parallel = unwrapped(model)
        if self._process_group is None:
            self._process_group = data_parallel
        self.model = model
        self.optimizer = None if optimizer is None else unwrapped_optimizer(optimizer)
        self._groups = GroupsByParameter()
        self.stacked = isinstance(model, Stacked)
        self.replicas = model.replicas if isinstance(model, Stacked) else 1
        if self.stacked and any(map(is_sharded, model.parameters())):
            raise ValueError("a stacked network cannot be sharded; give each process replicas of its own instead")
        self.parameters = chosen_parameters(model, include, exclude, usual=self.usual, frozen=self.takes_up)
        self._later = [name for name, parameter in self.parameters.items() if not parameter.requires_grad]
        self.sharded = any(map(is_sharded, self.parameters.values()))
        # Of one network's parameter each.
        self.blocks = {name: block_of(p.detach()[0] if self.stacked else p) for name, p in self.parameters.items()}
        self.device = next(iter(self.parameters.values())).device
        # A stacked network has its seeds from the start; what else has none stated takes that of a saved state.
        self._takes_seed = seed is None and not self.stacked
        if seed is None:
            seed = model.seeds if isinstance(model, Stacked) else self._new_seed()
        seeds = one_a_replica("seed", seed, self.replicas if self.stacked else None, "whole number")
        if seeds.is_floating_point():
            raise TypeError(f"seed is {seed!r}; it has to be a whole number")
        self.seed = seeds.to(self.device, torch.int64).expand(self.replicas).clone()
        given = {"include": include, "exclude": exclude}
        self.settings: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        every = torch.ones(self.replicas, dtype=torch.int64)
        self.when: Any = Every(every, every > 0, self.device)
        if optimizer_state is not None:
            choice("optimizer_state", optimizer_state, ("keep", "fresh", "mean"))
        self.distributions: dict[str, Distribution] = {}
        self.fixed_rows: dict[str, int] = {}
        self._stated: set[str] = set()
        if knows_initial:
            self._take_initial(initial)
        # With what is frozen yet, which is known only now.
        self.memory = self._memory(optimizer_state)
        self._start_counting()

    def _memory(self, optimizer_state: str | None) -> OptimizerMemory | None:
        """Finds out what the optimizer remembers; None if nothing has to be done about it."""
        if self.optimizer is None:
            if optimizer_state in ("fresh", "mean"):
                raise ValueError(
                    f'optimizer_state="{optimizer_state}" needs the optimizer: pass it as the second argument'
                )
            return None
        modes = (optimizer_state,) if optimizer_state else self.treatments if self.replaces else ("shift",)
        name = type(self).__name__
        memory = OptimizerMemory(self.optimizer, modes, self.replicas, self.stacked, self.parameters, name, self.seed)
        if memory.mode in ("fresh", "mean"):
            self.settings["optimizer_state"] = memory.mode
        return None if memory.idle else memory

    # What everybody calls.

    @torch.no_grad()
    def step(self) -> None:
        """Acts on the network once; after ``optimizer.step()``, before ``zero_grad()``.

        Raises:
            RuntimeError: if the method was closed, the model has got other parameters, or what it needs of the training
                step is missing.

        Warns:
            UserWarning: the first time that something was skipped, on a CPU; elsewhere :attr:`skipped` says so when it
                is read.
        """
        self._check_usable()
        if self.attachment is not None:
            self.attachment.check(self)
        if not self.steps and self._takes_seed:
            note_first_step()
        self.steps += 1
        self.moment, self.time = (type(self).__name__,), self.steps
        try:
            if self.memory is not None:
                self.memory.step()
            self._act()
        except BaseException:
            # A step that failed may be tried again.
            self.steps -= 1
            raise
        if self._new_skips and self.device.type == "cpu":
            if bool(self._skipped.any()):
                self._warn_of_skips(stacklevel=4)
            self._new_skips = False

    @torch.no_grad()
    def before_step(self) -> None:
        """Adds to the gradients what the method adds; after ``backward()``, before ``optimizer.step()``.

        Most methods add nothing. The gradients that :meth:`step` reads have what was added.

        Raises:
            RuntimeError: as :meth:`step`.
        """
        self._check_usable()
        if self.attachment is not None:
            self.attachment.check(self)
        self.moment, self.time = (type(self).__name__, "before"), self.steps + 1
        self._act_before_step()

    @torch.no_grad()
    def boundary(self) -> None:
        """Acts where the data changes: a new task, or new data.

        Raises:
            RuntimeError: as :meth:`step`, or if the method does not act at boundaries.
        """
        self._check_usable()
        if not self.acts_at_boundary:
            raise RuntimeError(f"{type(self).__name__} does not act at boundaries; it needs step() only")
        self.boundaries += 1
        self._last.zero_()
        self._last_step = self.steps
        self.moment, self.time = (type(self).__name__, "boundary"), self.boundaries
        self._act_at_boundary()

    def attach(self, *, checkpoint: bool = False) -> Self:
        """Lets the method act by itself around each ``optimizer.step()``, in any loop and any trainer.

        It acts through the optimizer's own hooks: once a step, after the update and while the gradients are still
        there. :meth:`step` and :meth:`before_step` are not called any more; :meth:`boundary` is. A step that a
        ``GradScaler`` skips is none. With ``torch.compile`` the method stays outside of compiled steps.

        Args:
            checkpoint: whether the optimizer's ``state_dict()`` holds the method's state, so that whoever saves the
                optimizer saves all, and loading brings it back. A method may also be made, in the same way as the
                saved one, after weights and optimizer were loaded: its initial distributions are then the saved ones.

        Returns:
            The method itself; ``with method.attach():`` closes it at the end.

        Raises:
            ValueError: if the method has no optimizer, or one that does not train all that it acts on, or whose
                ``step`` or ``state_dict`` calls no hooks; or if the state that the optimizer was loaded with is another
                method's.
            RuntimeError: if it is attached already.

        Example:
            >>> import torch, supple
            >>> model = torch.nn.Linear(2, 1, bias=False)
            >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            >>> method = supple.SWR(model, optimizer, frequency=1, factor=1.0).attach()
            >>> model(torch.ones(1, 2)).sum().backward()
            >>> optimizer.step()
            >>> int(method.reinitialized.total) > 0
            True
        """
        Attachment(self, checkpoint)
        return self

    def detach(self) -> None:
        """Ends what :meth:`attach` began: :meth:`step` is called by hand again. Without it, nothing."""
        if self.attachment is not None:
            self.attachment.remove()

    def close(self) -> None:
        """Takes away all hooks. The network trains on as if the method had never been there."""
        self.detach()
        super().close()

    @property
    def parts(self) -> tuple[Method, ...]:
        """The methods that it is made of: itself."""
        return (self,)

    @property
    def acts_before_step(self) -> bool:
        """Whether :meth:`before_step` does something."""
        return False

    @property
    def acts_at_boundary(self) -> bool:
        """Whether :meth:`boundary` does something."""
        return False

    # What a program asks that computes training steps by itself.

    def needs(self) -> Needs:
        """Says what the next :meth:`step` reads of the training step before it."""
        acts = self.watches or self.when.rows(self.steps + 1) is not None
        return Needs(self.reads_gradients and acts, [])

    def due_next(self) -> Tensor:
        """Says in which replicas the next :meth:`step` may reinitialize something: bool [R] on the CPU."""
        return self.when.mask(self.steps + 1) & self.ever_due()

    def ever_due(self) -> Tensor:
        """Says in which replicas it ever reinitializes something: bool [R] on the CPU."""
        active: Tensor = self.when.active
        return active if self.replaces else torch.zeros_like(active)

    # What methods share.

    @cached_property
    def layer_numbers(self) -> dict[str, int]:
        """The number of each parameter's layer from the last one back, which is 1; of those of layers.

        Of a parameter that layers share it is that of the last of them.
        """
        numbers: dict[int, int] = {}
        for number, layer in enumerate(layers_from_last(self.model), start=1):
            for parameter in layer.parameters(recurse=False):
                numbers.setdefault(id(parameter), number)
        return {name: numbers[id(p)] for name, p in self.model.named_parameters() if id(p) in numbers}

    @cached_property
    def chances(self) -> Chances:
        """What rounds small changes of parameters in half precision."""
        return Chances(self)

    def stack(self, tensor: Tensor) -> Tensor:
        """Gives a tensor of the network its dimension of replicas: itself if stacked, else a view with a leading 1.

        Args:
            tensor: a parameter, or a tensor like it; of a sharded one, the block that this process holds is taken.

        Returns:
            [R, ...], a view.
        """
        tensor = local(tensor) if self.sharded else tensor.detach()
        return tensor if self.stacked else tensor.unsqueeze(0)

    def usual(self, name: str, module: nn.Module, parameter: Tensor) -> bool:
        """Says whether it acts on a parameter if ``include`` says nothing; on all that train, if it says no else.

        Args:
            name: the parameter.
            module: the module that holds it.
            parameter: the parameter, of one network.

        Returns:
            The answer.
        """
        return True

    def step_size(self, parameter: nn.Parameter) -> float | Tensor:
        """Looks up the step size that the optimizer has now for a parameter.

        Args:
            parameter: the parameter.

        Returns:
            A number, or [R] on the parameter's device.

        Raises:
            ValueError: if there is no optimizer, or it does not hold the parameter.
        """
        if self.optimizer is None:
            raise ValueError(f"{self!r} needs the step size: pass the optimizer as the second argument")
        group = self._group(parameter)
        if not group:
            raise ValueError(f"the {type(self.optimizer).__name__} does not hold every parameter that {self!r} acts on")
        size = group["lr"]
        if isinstance(size, float | int):
            return float(size)
        return torch.as_tensor(size).to(self.device, non_blocking=True).expand(self.replicas)

    def maximizes(self, parameter: nn.Parameter) -> bool:
        """Says whether the optimizer goes along the gradient of a parameter, not against it.

        Args:
            parameter: the parameter.

        Returns:
            The answer; no where the optimizer is not known.
        """
        return bool(self._group(parameter).get("maximize", False))

    def _group(self, parameter: nn.Parameter) -> dict[str, Any]:
        """The optimizer's group of a parameter; empty where there is none."""
        groups = self._groups.of(() if self.optimizer is None else (self.optimizer,), parameter)
        return groups[0][1] if groups else {}

    def count(self, number: Tensor, rows: Rows = ALL) -> None:
        """Counts what was reinitialized in this step, or at this boundary.

        Args:
            number: int64, one for each of the rows.
            rows: which replicas.
        """
        if self.steps != self._last_step:
            self._last.zero_()
            self._last_step = self.steps
        self._last[rows] += number
        self._total[rows] += number

    def skip(self, unknown: Tensor, rows: Rows = ALL) -> None:
        """Counts a parameter or layer that is left alone because what is known of it is not finite.

        Args:
            unknown: bool, one for each of the rows.
            rows: which replicas.
        """
        self._skipped[rows] += unknown
        self._new_skips = True

    @abstractmethod
    def _act(self) -> None:
        """Acts on the network after the optimizer's step; ``self.steps`` already counts this step."""

    def _act_before_step(self) -> None:
        """Adds to the gradients, before the optimizer's step."""
        return

    def _act_at_boundary(self) -> None:
        """Acts on the network where the data changes."""
        return

    def _check_usable(self) -> None:
        """Raises a RuntimeError if the method was closed, or the model has got other parameters."""
        if self._closed:
            raise RuntimeError(f"{type(self).__name__} was closed; make a new one to go on")
        for path, holder, key, module in self._modules:
            if holder.get(key) is not module:
                raise RuntimeError(
                    f"module {path} of the model was replaced after this method was made; make the method, and the "
                    "optimizer, after that"
                )
        for name, held, last, parameter, device, dtype in self._held:
            if held.get(last) is not parameter:
                raise RuntimeError(
                    f"the model's parameters were replaced after this method was made ({name}), as by "
                    "load_state_dict(assign=True); make the method after that, or load without assign"
                )
            if parameter.device != device or parameter.dtype != dtype:
                raise RuntimeError(
                    f"{name} was {dtype} on {device} when this method was made and is {parameter.dtype} on "
                    f"{parameter.device} now; make the method, and the optimizer, after model.to(...)"
                )

    def __getstate__(self) -> dict[str, Any]:
        """What is copied or pickled: the method with its network and its optimizer."""
        if self._process_group is not None or self.sharded:
            raise TypeError(
                f"this {type(self).__name__} acts in several processes together, so it cannot be copied or pickled; "
                "make a new one for the copy of the network and give it this one's state_dict()"
            )
        return {name: value for name, value in vars(self).items() if name != "attachment"}

    def _new_seed(self) -> int:
        """A seed for this method, where none is stated."""
        meshes = [block.mesh for block in self.blocks.values() if block.mesh is not None]
        ranks = processes(meshes[0] if meshes else None, self._process_group)
        shapes = [(name, tuple(block.whole)) for name, block in self.blocks.items()]
        return common_seed(ranks, type(self).__name__, shapes)

    def _redrawn(self) -> Iterable[str]:
        """The parameters whose initial distributions have to be known."""
        return [name for name, parameter in self.parameters.items() if parameter.requires_grad]

    def _written(self) -> Collection[str]:
        """The parameters that may get new values; only they can show that the network was trained."""
        return [name for name, parameter in self.parameters.items() if parameter.requires_grad]

    def _take_initial(self, overrides: Overrides | None) -> None:
        """Works out the initial distributions."""
        if self.required == "nothing":
            self.fixed_rows = padding_rows(self.model)
            return
        with warnings.catch_warnings():
            if self.required == "means":
                warnings.filterwarnings("ignore", "The model looks trained already")
            names = self._redrawn()
            # Wrappers such as Lookahead copy the weights before any step.
            inner = None if self.optimizer is None else members(self.optimizer)[-1]
            if saved := saved_distributions(self):
                warnings.filterwarnings("ignore", "The model looks trained already")
            initial = initial_distributions(self.model, overrides, optimizer=inner, names=self._written())
        self._stated = {name for name, entry in initial.items() if entry.source == "override"}
        saved = {name: one for name, one in saved.items() if name not in self._stated}
        told = [name for name in names if name not in saved]
        require = initial.require_means if self.required == "means" else initial.require
        self.distributions = require(told) | saved
        for name in self._later:
            try:
                self.distributions |= {} if name in saved else require([name])
            except ValueError:
                if name in self.parameters and not self.parameters[name].requires_grad:
                    del self.parameters[name], self.blocks[name]
        self.fixed_rows = {name: entry.fixed_row for name, entry in initial.items() if entry.fixed_row is not None}
