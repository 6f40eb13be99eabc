"""YAML that anyone may have written: plain data only, of bounded size, and no key twice in a mapping.

Scalars are read as YAML 1.2 does: `1e5` is a number; `yes`, `no`, `on`, `off`, `1:30` and dates are text. What 1.1 and
1.2 read as different numbers, such as `010`, is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import yaml

MOST_BYTES = 2**20
"""Of a file, and of its characters once aliases are written out."""

MOST_ENTRIES = 50_000
"""Keys, values and lists of a file once aliases are written out."""

_MOST_DIGITS = 1_000
"""PyYAML's time for a number in base 60 grows with the square of its length."""

_INT, _FLOAT, _TEXT, _NULL = (f"tag:yaml.org,2002:{name}" for name in ("int", "float", "str", "null"))
_NUMBERS = (_INT, _FLOAT)
_MERGE = "tag:yaml.org,2002:merge"
_OCTAL = "!perhaps-octal"

_SCALARS = {
    # In this order: the first that matches decides. Each with the characters that it may begin with.
    "tag:yaml.org,2002:bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    _NULL: (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    _INT: (r"[-+]?(?:0|[1-9][0-9_]*|0x[0-9a-fA-F_]+|0b[01_]+)", "-+0123456789"),
    _OCTAL: (r"[-+]?0[0-9_]+", "-+0"),
    _FLOAT: (
        r"[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)"
        r"|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
    _MERGE: (r"<<", "<"),
}
"""Tag -> what a scalar without quotes must match for it."""

IsText = Callable[[tuple[str, ...]], bool]
"""Whether the value at a path of keys is text, whatever it looks like; `*` stands for the index in a list."""


class TooLargeError(Exception):
    """A file is larger than any spec."""


class AmbiguousError(yaml.YAMLError):
    """A value has two readings; the message says where, and what to do after ';'."""


class _Loader(yaml.SafeLoader):
    """PyYAML's loader of plain data, which counts while it reads, each alias as large as what it repeats."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (PyYAML's name and type)

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
        lines: dict[Any, int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:
                line = key.start_mark.line + 1
                identities = [key.value]
                if key.tag in _NUMBERS and len(key.value) <= _MOST_DIGITS:
                    identities.append(self.construct_object(key))  # 1 and 1.0 are one key
                for identity in identities:
                    if identity in lines:
                        raise AmbiguousError(
                            f"the key '{key.value[:50]}' is on line {lines[identity]} and again on line {line}; "
                            "keep one"
                        )
                lines |= dict.fromkeys(identities, line)
        return node

    def _count(self, n_entries: int, n_characters: int) -> None:
        self._n_entries += n_entries
        self._n_characters += n_characters
        if self._n_entries > MOST_ENTRIES:
            raise TooLargeError(f"expected at most {MOST_ENTRIES} entries with aliases written out, got more")
        if self._n_characters > MOST_BYTES:
            raise TooLargeError(f"expected at most {MOST_BYTES} characters with aliases written out, got more")


def _perhaps_octal(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> Any:
    shown, digits = node.value[:20], node.value.lstrip("+-0_")[:20] or "0"
    raise AmbiguousError(
        f"'{shown}' on line {node.start_mark.line + 1} begins with 0, which YAML may take for an octal number; "
        f"write {digits} if it is a number, '{shown}' in quotes if it is text"
    )


for _tag, (_pattern, _first) in _SCALARS.items():
    _Loader.add_implicit_resolver(_tag, re.compile(rf"^(?:{_pattern})$"), list(_first))
_Loader.add_constructor(_OCTAL, _perhaps_octal)


class _Dumper(yaml.SafeDumper):
    """PyYAML's writer of plain data, which quotes text that `_Loader` or another reader would take for a number."""


for _tag in (_FLOAT, _OCTAL):
    _Dumper.add_implicit_resolver(_tag, re.compile(rf"^(?:{_SCALARS[_tag][0]})$"), list(_SCALARS[_tag][1]))


def dump_yaml(content: Any) -> str:
    """Return plain data as YAML, which `load_yaml` and every reader of YAML 1.1 or 1.2 read back as it is."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False)


def _take_text(node: yaml.Node, path: tuple[str, ...], is_text: IsText) -> yaml.Node:
    """Return `node` with each scalar without quotes at a place of text as text, except null."""
    if isinstance(node, yaml.ScalarNode):
        if node.tag in (_TEXT, _NULL) or node.style is not None or not is_text(path):
            return node
        return yaml.ScalarNode(_TEXT, node.value, node.start_mark, node.end_mark)
    if isinstance(node, yaml.SequenceNode):
        node.value = [_take_text(item, (*path, "*"), is_text) for item in node.value]
    elif isinstance(node, yaml.MappingNode):
        node.value = [
            (key, _take_text(value, path if key.tag == _MERGE else (*path, str(key.value)), is_text))
            for key, value in node.value
        ]
    return node


def load_yaml(content: bytes, is_text: IsText | None = None) -> Any:
    """Return what a YAML file holds, as plain data.

    Args:
        content: the file.
        is_text: tells at which paths a value without quotes is text, even if it looks like a number.

    Raises:
        TooLargeError: if it is too large, or would be with its aliases written out.
        AmbiguousError: if a number has two readings, or a key is twice in a mapping.
        yaml.YAMLError: if it is no YAML, or has an alias inside of its own anchor.
        Exception: whatever else PyYAML lets through.
    """
    if len(content) > MOST_BYTES:
        raise TooLargeError(f"expected at most {MOST_BYTES} bytes, got more")
    loader = _Loader(content.decode("utf-8"))
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        return loader.construct_document(_take_text(node, (), is_text) if is_text else node)
    finally:
        loader.dispose()
