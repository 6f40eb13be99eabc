"""Output in encodings that lack some of our characters, such as Latin-1 or ASCII."""

from __future__ import annotations

import codecs
import io
import unicodedata

ERRORS = "continual_sweep_ascii"
"""Name of the error handler that writes ASCII for what an encoding lacks."""

_STAND_INS = {
    "±": "+/-",
    "×": "x",
    "·": "*",
    "²": "^2",
    "½": "1/2",
    "∂": "d",
    "‖": "||",
    "≤": "<=",
    "≥": ">=",
    "–": "-",
    "—": "-",
    "…": "...",
    "→": "->",
    "←": "<-",
    "λ": "lambda",  # Unicode names it 'lamda'
    "‘": "'",
    "’": "'",
    "“": '"',
    "”": '"',
}


def _stand_in(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_ascii, error.object[error.start : error.end])), error.end


def _ascii(character: str) -> str:
    """Return what stands for a character: `...` for `…`, `theta` for `θ`, or its escape as Python writes it."""
    if character in _STAND_INS:
        return _STAND_INS[character]
    script, _, name = unicodedata.name(character, "").partition(" ")
    if script == "GREEK" and name.startswith(("SMALL LETTER ", "CAPITAL LETTER ")):
        letter = name.partition(" LETTER ")[2].lower()
        return letter.capitalize() if name.startswith("CAPITAL") else letter
    return ascii(character)[1:-1]


codecs.register_error(ERRORS, _stand_in)


def encodable(text: str, encoding: str) -> str:
    r"""Return `text` with ASCII for what `encoding` lacks: `+/-` for `±`, and `\u65e5` for a character without one."""
    return text if text.isascii() else text.encode(encoding, ERRORS).decode(encoding)


def never_fail(*streams: object) -> None:
    """Let text streams write ASCII for what their encoding lacks, instead of raising `UnicodeEncodeError`."""
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ERRORS)
