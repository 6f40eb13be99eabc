"""YAML that anyone may have written: plain data only, of bounded size, and no key twice in a mapping."""

from __future__ import annotations

from typing import Any

import yaml

MOST_BYTES = 2**20
"""Of a file, and of its characters once aliases are written out."""

MOST_ENTRIES = 50_000
"""Keys, values and lists of a file once aliases are written out."""

_MOST_DIGITS = 1_000
"""PyYAML's time for a number in base 60 grows with the square of its length."""

_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_MERGE = "tag:yaml.org,2002:merge"


class TooLargeError(Exception):
    """A file is larger than any spec."""


class _Loader(yaml.SafeLoader):
    """PyYAML's loader of plain data, which counts while it reads, each alias as large as what it repeats."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._n_entries = self._n_characters = 0
        self._sizes: dict[int, tuple[int, int]] = {}
        """`id` of a complete node -> its entries and characters."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Return the next node, once it is counted."""
        is_alias, event = self.check_event(yaml.AliasEvent), self.peek_event()  # type: ignore[no-untyped-call]
        before = self._n_entries, self._n_characters
        node: yaml.Node | None = super().compose_node(parent, index)
        n_entries, n_characters = 1, len(node.value) if isinstance(node, yaml.ScalarNode) else 0
        if is_alias:
            if id(node) not in self._sizes:
                raise yaml.YAMLError(
                    f"the alias on line {event.start_mark.line + 1} is inside the anchor that it repeats"
                )
            n_entries, n_characters = self._sizes[id(node)]
        self._count(n_entries, n_characters)
        if isinstance(node, yaml.ScalarNode) and node.tag in _NUMBERS and len(node.value) > _MOST_DIGITS:
            raise TooLargeError(f"expected numbers of at most {_MOST_DIGITS} digits, got one of {len(node.value)}")
        if not is_alias:
            self._sizes[id(node)] = self._n_entries - before[0], self._n_characters - before[1]
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Return the next mapping. Keys that a merge (`<<`) brings are no duplicates: they are overridden."""
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:
                identity, line = (key.tag, key.value), key.start_mark.line + 1
                if identity in lines:
                    raise yaml.YAMLError(
                        f"the key '{key.value[:50]}' is on line {lines[identity]} and again on line {line}"
                    )
                lines[identity] = line
        return node

    def _count(self, n_entries: int, n_characters: int) -> None:
        self._n_entries += n_entries
        self._n_characters += n_characters
        if self._n_entries > MOST_ENTRIES:
            raise TooLargeError(f"expected at most {MOST_ENTRIES} entries with aliases written out, got more")
        if self._n_characters > MOST_BYTES:
            raise TooLargeError(f"expected at most {MOST_BYTES} characters with aliases written out, got more")


def load_yaml(content: bytes) -> Any:
    """Return what a YAML file holds, as plain data.

    Raises:
        TooLargeError: if it is too large, or would be with its aliases written out.
        yaml.YAMLError: if it is no YAML, has a key twice in a mapping, or an alias inside of its own anchor.
        Exception: whatever else PyYAML lets through.
    """
    if len(content) > MOST_BYTES:
        raise TooLargeError(f"expected at most {MOST_BYTES} bytes, got more")
    loader = _Loader(content.decode("utf-8"))
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()
