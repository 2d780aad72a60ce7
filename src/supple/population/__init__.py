"""Training many replicas at once."""

from supple.population.fast import FastStep
from supple.population.population import Population, TaskMetrics

__all__ = ["FastStep", "Population", "TaskMetrics"]
