"""Pure functions of tensors whose first dimension counts replicas."""
