"""YAML from strangers: read as data, and refused where it would take more time or memory than a spec needs."""

from __future__ import annotations

from typing import Any

import yaml

MOST_BYTES = 2**20
"""Of a file, and of its text once aliases are written out."""

MOST_ENTRIES = 50_000
"""Keys, values and lists of a file once aliases are written out."""

_MOST_DIGITS = 1_000
"""PyYAML's time for a number in base 60 grows with the square of its length."""

_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


class TooLargeError(Exception):
    """A file is larger than any spec; says what was expected and what was found."""


class _Loader(yaml.SafeLoader):
    """PyYAML's loader of plain data, which counts while it reads."""

    n_entries = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Return the next entry."""
        self.n_entries += 1
        if self.n_entries > MOST_ENTRIES:
            raise _too_many()
        node: yaml.Node | None = super().compose_node(parent, index)
        return node


def load_yaml(content: bytes) -> Any:
    """Return what a YAML file holds, as plain data.

    Raises:
        TooLargeError: where it is too large, or would be with its aliases written out.
        Exception: whatever PyYAML lets through where it is no YAML.
    """
    if len(content) > MOST_BYTES:
        raise TooLargeError(f"expected at most {MOST_BYTES} bytes, got more")
    loader = _Loader(content.decode("utf-8"))
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _size(node, {})
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _size(node: yaml.Node, known: dict[int, tuple[int, int] | None]) -> tuple[int, int]:
    """Return how many entries and characters a node has with aliases written out.

    Args:
        node: the node.
        known: those of nodes that were met, None while one is being counted.
    """
    if id(node) in known:
        found = known[id(node)]
        if found is None:
            raise TooLargeError("expected aliases of what is complete, got one inside of what it repeats")
        return found
    known[id(node)] = None
    n_entries, n_characters = 1, 0
    if isinstance(node, yaml.ScalarNode):
        n_characters = len(node.value)
        if node.tag in _NUMBERS and n_characters > _MOST_DIGITS:
            raise TooLargeError(f"expected numbers of at most {_MOST_DIGITS} digits, got one of {n_characters}")
    else:
        pairs = isinstance(node, yaml.MappingNode)
        for inner in [part for pair in node.value for part in pair] if pairs else node.value:
            entries, characters = _size(inner, known)
            n_entries, n_characters = n_entries + entries, n_characters + characters
            if n_entries > MOST_ENTRIES:
                raise _too_many()
            if n_characters > MOST_BYTES:
                raise TooLargeError(f"expected at most {MOST_BYTES} characters with aliases written out, got more")
    known[id(node)] = n_entries, n_characters
    return n_entries, n_characters


def _too_many() -> TooLargeError:
    return TooLargeError(f"expected at most {MOST_ENTRIES} entries with aliases written out, got more")
