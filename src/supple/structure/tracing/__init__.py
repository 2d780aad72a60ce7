"""Finding the hidden units of any model by following them from the weights that make them to those that read them.

``values`` says what is known of a tensor and ``layout`` how that changes when a tensor is viewed. ``axis`` is the
outputs of one weight and what is noted of them. ``operations`` says what each operation does to units, with the rules
in ``views``, ``elementwise``, ``shaping`` and ``weights``. ``run`` runs the model, ``record`` is what is noted
meanwhile, and ``groups`` makes the description of it.
"""

from supple.structure.tracing.groups import trace

__all__ = ["trace"]
