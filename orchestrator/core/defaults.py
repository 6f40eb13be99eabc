"""Defaults that the command line and the Python API share."""

from __future__ import annotations

from pathlib import Path

DATA_DIR = Path("~/.cache/continual-sweep")
"""Where torchvision's data sets are read from, or downloaded to."""
