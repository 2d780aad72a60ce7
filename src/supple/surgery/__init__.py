"""Changes of a network's layers against loss of plasticity, with its optimizer told.

Each function changes the network in place and gives it back. What stays of it (weights, moments, their ages) stays as
it was; what is new joins the optimizer's groups. Make methods, ``torch.compile`` and ``DistributedDataParallel`` after
that: names of modules and parameters change, as "0.weight" to "0.layer.weight".
"""

from supple.surgery.activation import Activated, Fourier, Mirror, crelu, fourier, layer_norm
from supple.surgery.injection import Injected, inject

__all__ = ["Activated", "Fourier", "Injected", "Mirror", "crelu", "fourier", "inject", "layer_norm"]
