"""What is measured of a network beside accuracy and loss."""

from supple.metrics.dead import dead_share, dead_units

__all__ = ["dead_share", "dead_units"]
