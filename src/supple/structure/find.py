"""Finding the hidden units of a model."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from supple.functional.sharding import is_sharded
from supple.structure.description import Units
from supple.structure.sequential import is_chain, sequential
from supple.structure.tracing import trace
from supple.structure.wrapping import unwrapped

_BY_HAND = (
    "Describe the hidden units by hand: supple.Units([supple.UnitGroup(...), ...]) with the names of the weights that "
    "come in and go out, and pass it as units=..., or let a method hidden_units() of the model give it"
)


def units(model: nn.Module, example: Any = None) -> Units:
    """Finds the hidden units of a model.

    With an example, of any model: it is traced (:mod:`supple.structure.tracing`), and the outputs of a Linear or Conv
    are hidden units when only Linears and Convs read them, through operations that keep units apart: activations,
    dropout, normalization, pooling, reshaping, concatenation, and products and sums of several (gated layers, layers of
    two inputs, a layer and an embedding), which are one group with the weights of all of them. Left out, with the
    reason, are units that are added to or multiplied with features that their own weights do not make (a residual
    stream, an input, a state), that go into attention or a recurrent layer, whose weights are used for something else,
    or that something unknown may mix; and every other parameter of two dimensions or more, such as an embedding alone.

    Without one, of a ``torch.nn.Sequential`` (nested ones too, but no subclass with a forward of its own).

    A network of this package, or any module with a method ``hidden_units()`` that returns :class:`Units`, says it
    itself.

    Features are read at one place of the model for each group: where several layers read the units behind different
    operations, as in ``o(h * g), o2(h)``, it is the input of the first of those that have the fewest inputs a unit.

    Args:
        model: the model, also inside ``torch.compile`` or ``DistributedDataParallel``. Neither it, nor its gradients,
            nor a random number generator is changed. It is traced in training mode, and in evaluation mode too if it is
            in that. Hooks on its modules do not run, but for those of PyTorch itself, such as pruning.
        example: what the model takes in: a tensor; a tuple or list of arguments; a mapping of keyword arguments (where
            the model takes one mapping, a tuple of it); or any other object with tensors in it, such as a dataclass, a
            named tuple or a ``TensorDict``, which is the only argument then. Only the shapes matter, unless the model
            decides something by the values.

    Returns:
        The units, a group a layer, in order, with the layers that were left out and why. Prints as a table.

    Raises:
        ValueError: if the model is of another kind and there is no example, does not run on the example, has sharded
            parameters (``fully_shard``), or has no hidden units; the message says what to do.
        TypeError: if the model's own ``hidden_units()`` gives anything but :class:`Units`.

    Example:
        >>> from torch import nn
        >>> supple.units(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)))
        layer  units  features read at  in                out       normalization
        0      8      input of 2        0.weight, 0.bias  2.weight  -
        >>> model = nn.TransformerEncoderLayer(d_model=4, nhead=2, dim_feedforward=8, batch_first=True)
        >>> [group.name for group in supple.units(model, torch.zeros(1, 5, 4))]
        ['linear1']
    """
    model, _ = unwrapped(model)
    kind = type(model).__name__
    if isinstance(model, torch.jit.ScriptModule):
        raise ValueError(
            f"cannot find the hidden units of a {kind}: torch.jit compiled it, so that hooks cannot read the features "
            "in it; pass, and train, the module that it was made from (torch.compile can be used)"
        )
    # Asked of the class: an attribute of this name may be anything, such as a number of units.
    if callable(getattr(type(model), "hidden_units", None)):
        found = model.hidden_units()  # type: ignore[operator]
        if not isinstance(found, Units):
            raise TypeError(
                f"{kind}.hidden_units() gave a {type(found).__name__}; it has to give supple.Units([...]) of "
                "supple.UnitGroup(...)"
            )
        found = found.completed(model, lambda name: f"{kind}.hidden_units() does not speak of it")
    elif example is not None:
        if any(map(is_sharded, model.parameters())):
            raise ValueError(
                f"cannot trace {kind}: its parameters are sharded; call supple.units before fully_shard and pass the "
                "result as units=..."
            )
        try:
            found = trace(model, example)
        except ValueError as error:
            raise ValueError(f"{error}.\n{_BY_HAND}") from error
    elif is_chain(model):
        try:
            found = sequential(model)
        except ValueError as error:
            raise ValueError(f"{error}. {_BY_HAND}") from error
    else:
        why = f": {kind} has a forward of its own" if isinstance(model, nn.Sequential) else ""
        raise ValueError(
            f"cannot find the hidden units of a {kind}{why}. Without an example they are found in torch.nn.Sequential "
            "and in the networks of supple.lab.nn; for any other model give an example of its input: "
            f"units=supple.units(model, example). {_BY_HAND}"
        )
    if not found:
        reasons = "".join(f"\n  {item.name}: {item.reason}" for item in found.excluded)
        tells = "An example of its input tells what modules do with units: units=supple.units(model, example). "
        remedy = tells + _BY_HAND if example is None and is_chain(model) else _BY_HAND
        raise ValueError(f"{kind} has no hidden units that can be replaced.{reasons}\n{remedy}")
    return found
