"""Reads a page as a browser's parser would: tables with their values, texts, attributes."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

_VOID = {"meta", "link", "input", "br", "img"}


@dataclass
class Node:
    """An element: its name, attributes and what is in it."""

    tag: str
    attributes: dict[str, str]
    children: list[Node | str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """Return all text in it, in one line."""
        return " ".join("".join(c if isinstance(c, str) else f" {c.text} " for c in self.children).split())

    @property
    def own_text(self) -> str:
        """Return the text that is in it but in no `small` element."""
        parts = (c if isinstance(c, str) else "" if c.tag == "small" else c.own_text for c in self.children)
        return " ".join("".join(parts).split())

    def find(self, tag: str, **attributes: str) -> list[Node]:
        """Return the elements in it with a tag and attributes; `kind` stands for one of its classes."""
        found = []
        for child in self.children:
            if isinstance(child, Node):
                kinds = child.attributes.get("class", "").split()
                wanted = {k: v for k, v in attributes.items() if k != "kind"}
                fits = child.tag == tag and all(child.attributes.get(k) == v for k, v in wanted.items())
                if fits and attributes.get("kind", kinds[0] if kinds else "") in (kinds or [""]):
                    found.append(child)
                found += child.find(tag, **attributes)
        return found

    def one(self, tag: str, **attributes: str) -> Node:
        """Return the only such element."""
        (found,) = self.find(tag, **attributes)
        return found

    def rows(self) -> list[list[Node]]:
        """Return the cells of a table's body."""
        return [[c for c in row.children if isinstance(c, Node)] for row in self.one("tbody").find("tr")]

    def records(self) -> list[dict[str, Any]]:
        """Return the body of a table: heading -> the exact value of a number, or the text."""
        heads = [head.text for head in self.one("thead").find("th")]
        return [dict(zip(heads, map(value_of, row), strict=True)) for row in self.rows()]


def value_of(cell: Node) -> float | str:
    """Return the exact value of a cell with a number, or its text."""
    exact = cell.attributes.get("data-value")
    return float(exact) if exact is not None else cell.own_text


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Node("root", {})
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        node = Node(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(node)
        if tag not in _VOID:
            self.open.append(node)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().tag == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def read(html: str) -> Node:
    """Return the page as a tree; every element must be closed in order."""
    parser = _Parser()
    parser.feed(html)
    parser.close()
    assert parser.open == [parser.root], "an element is not closed"
    return parser.root


def drawn(page: Node) -> dict[str, Any]:
    """Return figure -> its charts and their values."""
    found: dict[str, Any] = json.loads("".join(map(str, page.one("script", id="drawn").children)))
    return found
