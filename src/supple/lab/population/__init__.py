"""Training many replicas at once, and one vision transformer on added classes."""

from supple.lab.population.any_module import AnyPopulation
from supple.lab.population.class_incremental import ClassIncrementalTraining
from supple.lab.population.disturbance import Disturbance
from supple.lab.population.fast import FastStep
from supple.lab.population.graphs import GraphedStep
from supple.lab.population.layers import PRECISIONS, Precision, Products
from supple.lab.population.population import Population, TaskMetrics
from supple.lab.population.problem import Curve, Metric, Problem

__all__ = [
    "PRECISIONS",
    "AnyPopulation",
    "ClassIncrementalTraining",
    "Curve",
    "Disturbance",
    "FastStep",
    "GraphedStep",
    "Metric",
    "Population",
    "Precision",
    "Problem",
    "Products",
    "TaskMetrics",
]
