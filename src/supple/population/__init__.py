"""Training many replicas at once."""

from supple.population.disturbance import Disturbance
from supple.population.fast import FastStep
from supple.population.graphs import GraphedStep
from supple.population.parts import cut
from supple.population.population import Population, TaskMetrics
from supple.population.products import Products

__all__ = ["Disturbance", "FastStep", "GraphedStep", "Population", "Products", "TaskMetrics", "cut"]
