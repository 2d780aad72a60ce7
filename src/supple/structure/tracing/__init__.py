"""Finding the hidden units of any model by following them from the weights that make them to those that read them.

``values`` says what is known of a tensor and ``layout`` how that changes when a tensor is viewed. ``axis`` is the
outputs of one weight and what is noted of them. ``operations`` says what each operation does to units, with the rules
in ``views``, ``elementwise``, ``shaping``, ``indexing`` and ``weights``. ``run`` runs the model on its way, ``course``;
``watch`` sees what it does, and ``record`` is what is noted meanwhile. ``groups`` makes the description of it, and
``union`` one of several.
"""

from supple.structure.tracing.groups import trace

__all__ = ["trace"]
