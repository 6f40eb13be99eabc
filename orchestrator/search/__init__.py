"""The constrained search: a pure function of the spec and of results."""
