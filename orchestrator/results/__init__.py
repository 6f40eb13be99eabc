"""A run folder: its spec, its tables, and who may add to them."""
