"""What hidden units do on many examples: units that are dead, dormant, saturated, linear, or hardly learn.

Every function takes the outputs of n units as [..., E, n], for E examples and n units; dimensions in front, such as
replicas, are kept. Activations of another layout are brought into it by :func:`as_features`, and those of a whole
model's units come so from :func:`supple.metrics.unit_features`. The share of a layer's units is the mean of what is
given.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from supple.functional.utility import unit_activation, unit_incoming


def as_features(activations: Tensor, dim: int, leading: int = 0) -> Tensor:
    """Activations as [..., E, n]: units last, examples and positions or tokens together before them.

    Args:
        activations: any shape.
        dim: the dimension that counts units: 1 for the channels of a convolution, -1 for the features of a transformer.
        leading: number of dimensions in front to keep, such as that of replicas.

    Returns:
        [..., E, n].

    Example:
        >>> import torch
        >>> from supple.metrics import as_features
        >>> as_features(torch.zeros(32, 64, 8, 8), dim=1).shape, as_features(torch.zeros(8, 100, 512), dim=-1).shape
        (torch.Size([2048, 64]), torch.Size([800, 512]))
    """
    return activations.movedim(dim, -1).flatten(leading, -2)


def dead_units(features: Tensor, saturated: Sequence[float], tolerance: float) -> Tensor:
    """Which units give, on all examples, nothing but the saturated values of their activation function.

    Args:
        features: [..., E, n], outputs of n units on E examples.
        saturated: the saturated values; 0 for ReLU.
        tolerance: how near to one of them counts; 0: exactly.

    Returns:
        bool [..., n].

    Source: Hernandez-Garcia et al. (arXiv 2508.00212), correlates of loss of plasticity.
    """
    return _saturated(features, saturated, tolerance).all(dim=-2)


def saturated_share(features: Tensor, saturated: Sequence[float], tolerance: float) -> Tensor:
    """On which share of the examples a unit gives a saturated value, where its activation function has no slope.

    Args:
        features: [..., E, n], outputs of n units on E examples.
        saturated: the saturated values; 0 for ReLU, -1 and 1 for tanh.
        tolerance: how near to one of them counts; 0: exactly.

    Returns:
        float32 [..., n], 0 to 1; 1 for dead units.

    Source: Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks" (AISTATS
    2010), section 3; of ReLU it is the sparsity of Glorot, Bordes and Bengio (AISTATS 2011).
    """
    return _saturated(features, saturated, tolerance).float().mean(dim=-2)


def _saturated(features: Tensor, saturated: Sequence[float], tolerance: float) -> Tensor:
    near = torch.zeros_like(features, dtype=torch.bool)
    for value in saturated:
        near |= (features - value).abs() <= tolerance
    return near


def linearized_units(features: Tensor, above: float = 0.0, below: float | None = None) -> Tensor:
    """Which units stay, on all examples, where their activation function is a straight line with a slope.

    Such a unit does nothing that the weights of a linear layer could not do.

    Args:
        features: [..., E, n], outputs of n units on E examples.
        above: outputs above this one are on a straight line; 0 for ReLU, 3 for GELU (within 0.005).
        below: outputs below this one are on another, such as 0 for leaky ReLU; None: there is no other.

    Returns:
        bool [..., n].

    Source: Lyle et al., "Disentangling the causes of plasticity loss in neural networks" (arXiv 2402.18762);
    Lewandowski et al., "Plastic learning with deep Fourier features" (ICLR 2025, arXiv 2410.20634).
    """
    linear = (features > above).all(dim=-2)
    return linear if below is None else linear | (features < below).all(dim=-2)


def sign_entropy(features: Tensor, zero: float = 0.0) -> Tensor:
    """How undecided a unit is: the entropy of the sign of its pre-activation over the examples, in bits.

    With p the share of examples on which the pre-activation is above 0: -p log2(p) - (1 - p) log2(1 - p). It is 1 for a
    unit that is positive on half of the examples, and 0 for one that always is, or never.

    Args:
        features: [..., E, n], outputs of n units on E examples.
        zero: the output at the pre-activation 0, which the sign is told from; 0 for most activation functions, 0.5 for
            a sigmoid. They have to have their sign, or order, in common with their input, as all of the usual ones do.

    Returns:
        float32 [..., n], 0 to 1.

    Source: Lewandowski et al., "Plastic learning with deep Fourier features" (ICLR 2025, arXiv 2410.20634), definition
    1, with the entropy of its text.
    """
    positive = (features > zero).float().mean(dim=-2)
    nats = torch.special.entr(positive) + torch.special.entr(1 - positive)
    return nats / torch.log(torch.tensor(2.0, device=features.device))


def dormancy(features: Tensor) -> Tensor:
    """The dormancy score: a unit's mean |output| relative to the mean over its layer; dormant is what is at most tau.

    s_i = mean over examples of |h_i| / (mean over units of the same). A unit is tau-dormant where s_i <= tau; the
    authors take 0.025 for DQN and 0.1 elsewhere. In a layer that puts out nothing, all scores are 0.

    Args:
        features: [..., E, n], outputs of n units on E examples.

    Returns:
        At least float32 [..., n], with a mean of 1 over the units.

    Source: Sokar, Agarwal, Castro and Evci, "The dormant neuron phenomenon in deep reinforcement learning" (ICML 2023,
    arXiv 2302.12902), equation 1.

    Example:
        >>> import torch
        >>> from supple.metrics import dormancy
        >>> (dormancy(torch.tensor([[3.0, 0.1, 1.0], [-5.0, 0.0, 1.0]])) <= 0.1).tolist()
        [False, True, False]
    """
    by_unit = features.mT.reshape(-1, features.shape[-1], features.shape[-2])
    return _relative(unit_activation(by_unit)).view(*features.shape[:-2], features.shape[-1])


def grama(gradients: Sequence[Tensor]) -> Tensor:
    """The GraMa score: the mean |gradient| of a unit's incoming weights relative to the mean over its layer.

    A unit is inactive where the score is at most tau, as with :func:`dormancy`; 0 for all in a layer without gradients.

    Args:
        gradients: for each weight that makes the units, its gradient [R, n, ...].

    Returns:
        At least float32 [R, n], with a mean of 1 over the units.

    Source: Liu et al., "Measure gradients, not activations! Enhancing neuronal activity in deep reinforcement learning"
    (arXiv 2505.24061), by the weights' gradients.
    """
    return _relative(unit_incoming(gradients))


def _relative(size: Tensor) -> Tensor:
    mean = size.mean(dim=-1, keepdim=True)
    return torch.where(mean == 0, 0, size / mean)


def dormant_units(features: Tensor, most: float = 0.01) -> Tensor:
    """Which units put out at most a small value on all examples. A value below 0 counts as none, however large.

    What most of the literature calls dormant is relative to the layer: :func:`dormancy`.

    Args:
        features: [..., E, n], outputs of n units on E examples.
        most: the largest output of a dormant unit.

    Returns:
        bool [..., n].

    Source: Hernandez-Garcia et al. (arXiv 2508.00212), correlates of loss of plasticity in the vision transformer.
    """
    return (features <= most).all(dim=-2)
