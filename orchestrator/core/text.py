"""Makes foreign text safe to print: spells out characters that move the cursor or change the writing direction."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_HIDDEN = (
    (0x00, 0x1F),  # C0: escape sequences, carriage returns, line breaks
    (0x7F, 0x9F),  # delete and C1, one of which begins an escape sequence
    (0x061C, 0x061C),
    (0x200E, 0x200F),  # marks of writing direction, like the one above
    (0x2028, 0x202E),  # line and paragraph separators, embeddings and overrides of direction
    (0x2066, 0x2069),  # isolates
    (0xD800, 0xDFFF),  # surrogates: bytes of a file name that are no UTF-8, which cannot be printed
)
_SPELLED = {code: ascii(chr(code))[1:-1] for first, last in _HIDDEN for code in range(first, last + 1)}
_SPELLED_IN_LINES = {code: spelled for code, spelled in _SPELLED.items() if code != ord("\n")}


def visible(text: str) -> str:
    r"""Return `text` as one line, with control characters as Python writes them: `\n`, `\x1b`, `\u202e`."""
    return text.translate(_SPELLED)


def visible_lines(text: str) -> str:
    """Return `text` as `visible` does, but keep its line breaks."""
    return text.translate(_SPELLED_IN_LINES)


def nearest(name: str, known: Iterable[str]) -> str:
    """Return advice on an unknown name: the nearest known name, or all of them."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean '{close[0]}'?" if close else f"choose from: {', '.join(known)}"


def counted(n: int, noun: str) -> str:
    """Return a number of things, such as `1 seed` or `3 seeds`."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
