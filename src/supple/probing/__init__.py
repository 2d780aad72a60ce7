"""How well would a network learn something new, compared with a fresh one?"""

from supple.probing.curves import Interval
from supple.probing.probe import Comparison, Probe, probe
from supple.probing.tasks import RandomLabels, RandomTeacher, Task
from supple.probing.variants import Variant, Variants

__all__ = [
    "Comparison",
    "Interval",
    "Probe",
    "RandomLabels",
    "RandomTeacher",
    "Task",
    "Variant",
    "Variants",
    "probe",
]
