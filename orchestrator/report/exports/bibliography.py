"""The literature of a run's methods as BibTeX, from their `paper` fields."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from orchestrator.report.exports.latex import latex
from orchestrator.report.exports.papers import PAPERS, Paper
from strategies import find_method

_ARXIV = re.compile(r"\b\d{4}\.\d{4,5}\b")
_YEAR = re.compile(r"\b(?:19|20)\d\d\b")


def cited(paper: str) -> list[str]:
    """Return the parts of a method's `paper` field, such as 'Schwarz et al. 2018, arXiv 1805.06370', without a lead."""
    parts = (part.strip() for part in paper.split(";"))
    return [part.rpartition(": ")[2] for part in parts if part]


def entry_of(part: str) -> tuple[str, Paper] | None:
    """Return the arXiv id, empty if there is none, and the entry of what a part of a `paper` field names, if known."""
    if part in PAPERS:
        return "", PAPERS[part]
    return next(((found, PAPERS[found]) for found in _ARXIV.findall(part) if found in PAPERS), None)


def render_bibtex(methods: Iterable[str]) -> str:
    """Return a BibTeX entry for each source of some methods, once each; a comment says which methods have none.

    A source that this package does not know, such as that of a plugin, becomes an entry of its text.
    """
    methods = list(dict.fromkeys(methods))
    users: dict[str, list[str]] = {}
    for method in methods:
        for part in cited(find_method(method).paper):
            users.setdefault(part, []).append(method)
    without = [method for method in methods if not find_method(method).paper]
    lead = [f"% without a source: {', '.join(_comment(method) for method in without)}\n"] if without else []
    return "\n".join([*lead, *_entries(users)])


def _entries(users: dict[str, list[str]]) -> Iterator[str]:
    keys: set[str] = set()
    for part, methods in users.items():
        known = entry_of(part)
        number, paper = known if known is not None else (next(iter(_ARXIV.findall(part)), ""), _unknown(part, keys))
        if paper.key not in keys:
            keys.add(paper.key)
            yield f"% {', '.join(map(_comment, methods))}\n{_entry(number, paper)}"


def _unknown(part: str, keys: set[str]) -> Paper:
    """Return an entry whose title is the text itself."""
    word = re.sub(r"[^a-z0-9]", "", (part.split() or [""])[0].lower()) or "source"
    year = next(iter(_YEAR.findall(_ARXIV.sub("", part))), "")
    key, n = f"{word}{year}", 1
    while key in keys | {paper.key for paper in PAPERS.values()}:
        n += 1
        key = f"{word}{year}x{n}"
    return Paper(key, "", f"{{{latex(part)}}}", int(year or 0))


def _entry(number: str, paper: Paper) -> str:
    fields = {
        "author": paper.authors,
        "title": paper.title,
        **paper.where,
        "year": str(paper.year or ""),
        "eprint": number,
        "archiveprefix": "arXiv" if number else "",
    }
    body = "".join(f"  {name} = {{{value}}},\n" for name, value in fields.items() if value)
    return f"@{paper.kind}{{{paper.key},\n{body}}}\n"


def _comment(method: str) -> str:
    """Return a method's name for a comment: BibTeX reads an @ even there."""
    return latex(method).replace("@", "(at)")
