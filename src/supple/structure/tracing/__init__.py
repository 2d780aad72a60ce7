"""Finding the hidden units of any model by following them from the weights that make them to those that read them.

``values`` says what is known of a tensor, ``layout`` how that changes when a tensor is viewed, ``operations`` what
each operation does to units, ``run`` runs the model, and ``groups`` makes the description from what was seen.
"""

from supple.structure.tracing.groups import trace

__all__ = ["trace"]
