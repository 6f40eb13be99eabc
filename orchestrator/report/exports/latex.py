"""A paper's table in LaTeX with booktabs. Names may be anybody's: nothing in them is read as a command."""

from __future__ import annotations

import re
import unicodedata

from orchestrator.core.text import visible
from orchestrator.report.exports.entries import Entry
from orchestrator.report.exports.paper_table import PaperTable

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"$\lbrace$",
    "}": r"$\rbrace$",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"$<$",
    ">": r"$>$",
    "|": r"\textbar{}",
    '"': "''",
    "[": "{[}",  # after a line break it would begin an option
    "]": "{]}",
    "*": "{*}",  # so would this
    "`": r"\textasciigrave{}",
    "±": r"$\pm$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "×": r"$\times$",
    "†": r"$^{\dagger}$",
    "‡": r"$^{\ddagger}$",
    "§": r"$^{\mathsection}$",
    "—": "---",
    "–": "--",
    "…": r"\ldots{}",
    "‘": "`",
    "’": "'",
    "“": "``",
    "”": "''",
    "\u00a0": "~",
    "\u200b": "{}",  # between hyphens, which would be joined to a dash
    "ß": r"{\ss}",
    "ø": r"{\o}",
    "Ø": r"{\O}",
    "æ": r"{\ae}",
    "Æ": r"{\AE}",
    "ł": r"{\l}",
    "Ł": r"{\L}",
    "ı": r"{\i}",
}
_ACCENTS = {
    "\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0308": '"', "\u0304": "=", "\u0307": ".",
    "\u030c": "v", "\u0306": "u", "\u030b": "H", "\u030a": "r", "\u0327": "c", "\u0323": "d",
}  # fmt: skip


def latex(text: str) -> str:
    """Return plain text for LaTeX, whatever engine and encoding of fonts compile it.

    Latin letters with an accent are kept; a character of another script, which pdflatex has no font for, becomes its
    number, as in `U+4E2D`.
    """
    return "".join(_character(one) for one in re.sub("-(?=-)", "-\u200b", visible(text)))


def _character(one: str) -> str:
    if one in _SPECIAL:
        return _SPECIAL[one]
    if one.isascii():
        return one
    base, *accents = list(unicodedata.normalize("NFD", one))
    if len(accents) == 1 and base.isascii() and accents[0] in _ACCENTS:
        return f"{{\\{_ACCENTS[accents[0]]}{{{base}}}}}"
    return f"U+{ord(one):04X}"


def render_latex(table: PaperTable) -> str:
    """Return a `table` environment; the document needs `\\usepackage{booktabs}`."""
    panels = table.panels
    n_columns = 1 + len(panels[0].columns)
    lines = [
        f"% Written by continual-sweep from the answer of '{visible(table.name)}'; needs \\usepackage{{booktabs}}",
        "\\begin{table}",
        "\\centering",
        f"\\caption{{{' '.join(latex(note) for note in table.notes)}}}",
        f"\\label{{tab:{table.name}}}",
        f"\\begin{{tabular}}{{l{'r' * (n_columns - 1)}}}",
        "\\toprule",
    ]
    above: list[str] = []
    for panel in panels:
        heads = ["Method", *(latex(head) for head, _, _ in panel.columns)]
        lines += ["\\midrule"] if above else []
        lines += [f" & \\multicolumn{{{n_columns - 1}}}{{c}}{{{latex(panel.title)}}} \\\\"]
        lines += [f"\\cmidrule(l){{2-{n_columns}}}"]
        lines += [_row(heads), "\\midrule"] if heads != above else []
        lines += [_row([latex(table.row_head(name)), *map(_cell, table.row(name, panel))]) for name in table.methods]
        above = heads
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", "\\end{table}"]) + "\n"


def _row(cells: list[str]) -> str:
    return " & ".join(cells) + " \\\\"


def _cell(entry: Entry) -> str:
    text = latex(entry.text)
    if text.startswith("-") and entry.number is not None:
        text = f"$-${text[1:]}"  # a minus, not a hyphen
    return (f"\\textbf{{{text}}}" if entry.is_best else text) + latex(entry.marks)
