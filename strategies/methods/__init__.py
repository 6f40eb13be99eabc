"""One method a module."""
