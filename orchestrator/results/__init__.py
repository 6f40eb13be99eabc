"""A run folder: its spec, its tables, and which sweep may add to them."""
