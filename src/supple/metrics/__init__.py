"""What is measured of a network beside its loss."""

from supple.metrics.accuracy import hits
from supple.metrics.dead import dead_units, dormant_units
from supple.metrics.magnitude import mean_magnitude
from supple.metrics.rank import feature_rank
from supple.metrics.unit_features import unit_features

__all__ = [
    "dead_units",
    "dormant_units",
    "feature_rank",
    "hits",
    "mean_magnitude",
    "unit_features",
]
