"""Methods in trainers people use: one module a library, which is imported only there."""
