"""Running a model in the middle of its training without leaving a trace."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from supple.functional.generators import generators_kept


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Puts a model into evaluation mode for a time, in which nothing that happens to it shows in the training after.

    Modes are set module by module, not by ``model.eval()``, which a module may have given a meaning of its own, such as
    to merge weights. Buffers are copies, so that whatever is written into them is gone afterwards. The states of all
    random generators are put back: those of PyTorch on the CPU and on the model's devices, NumPy's, Python's and those
    that modules hold. No gradient is recorded, weights that autocast has cast are not kept, and nothing is compiled.

    Args:
        model: the model. What its modules keep in ordinary attributes is not looked after.

    Yields:
        Nothing.
    """
    modules = list(model.modules())
    training = [module.training for module in modules]
    buffers = [dict(module._buffers) for module in modules]
    copies = {id(b): b.clone() for group in buffers for b in group.values() if b is not None}
    with ExitStack() as stack:
        stack.enter_context(generators_kept({parameter.device for parameter in model.parameters()}))
        for own in (value for module in modules for value in vars(module).values()):
            if isinstance(own, torch.Generator):
                stack.callback(own.set_state, own.get_state())
        stack.enter_context(torch.no_grad())
        device = next((p.device.type for p in model.parameters()), "cpu")
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
            stack.enter_context(torch.autocast(device, dtype, cache_enabled=False))
        if "torch._dynamo" in sys.modules:
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        try:
            for module in modules:
                module.training = False
                for name, buffer in module._buffers.items():
                    module._buffers[name] = None if buffer is None else copies[id(buffer)]
            yield
        finally:
            for module, mode, own in zip(modules, training, buffers, strict=True):
                module.training = mode
                module._buffers.clear()
                module._buffers.update(own)
                if any(kind.__name__ == "FSDPModule" for kind in type(module).__mro__):
                    # Else the next forward pass would take the weights that were gathered, and not those of then.
                    module.reshard()  # type: ignore[operator]
