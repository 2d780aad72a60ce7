"""What is measured of a network beside its loss."""

from supple.metrics.accuracy import hits
from supple.metrics.rank import Ranks, effective_rank, feature_rank, ranks, singular_values, spectral_norm, stable_rank
from supple.metrics.shapes import SHAPES, Shape
from supple.metrics.undisturbed import undisturbed
from supple.metrics.unit_features import unit_features
from supple.metrics.units import (
    as_features,
    dead_units,
    dormancy,
    dormant_units,
    grama,
    linearized_units,
    saturated_share,
    sign_entropy,
)
from supple.metrics.watching import Watch, watch
from supple.metrics.weights import distance, mean_magnitude, normalization_scales, update_ratio, zero_share

__all__ = [
    "SHAPES",
    "Ranks",
    "Shape",
    "Watch",
    "as_features",
    "dead_units",
    "distance",
    "dormancy",
    "dormant_units",
    "effective_rank",
    "feature_rank",
    "grama",
    "hits",
    "linearized_units",
    "mean_magnitude",
    "normalization_scales",
    "ranks",
    "saturated_share",
    "sign_entropy",
    "singular_values",
    "spectral_norm",
    "stable_rank",
    "undisturbed",
    "unit_features",
    "update_ratio",
    "watch",
    "zero_share",
]
