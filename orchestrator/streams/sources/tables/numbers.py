"""Text that holds numbers: read as the settings say, or recognised as numbers that are written otherwise."""

from __future__ import annotations

import re
from collections.abc import Sequence

_SPACES = " \u00a0\u2009\u202f"
_GROUPS = {" ": _SPACES, "'": "'\u2019"}
_SIGN = r"[+\-\u2212]?"
_CURRENCY = (
    r"(?:[A-Za-z]{0,3}[$\u20ac\u00a3\u00a5\u20b9\u20bd\u20a9\u20ba\u20aa\u0e3f]|(?i:usd|eur|gbp|chf|jpy|cny|inr|cad|"
    r"aud|sek|nok|dkk|pln|czk|huf|brl|mxn|zar|try|rub|krw|sgd|hkd|nzd|kr\.?|fr\.?|rs\.?|z\u0142))"
)
_CORE = (
    r"(?:\d{1,3}(?:[.,'\u2019_ \u00a0\u2009\u202f]\d{3})+(?:[.,]\d+)?|\d{1,2}(?:,\d{2})+,\d{3}(?:\.\d+)?"
    r"|\d*[.,]?\d+[.,]?)"
)
_OTHERWISE = re.compile(
    rf"\s*(?P<open>\(?){_SIGN}\s*(?P<before>{_CURRENCY}?)\s*{_SIGN}\s*(?P<core>{_CORE})(?:[eE][+-]?\d+)?"
    rf"\s*(?P<after>[%\u2030]|{_CURRENCY}|[^\W\d_]{{1,12}}[\u00b2\u00b3]?(?:/[^\W\d_]{{1,6}}[\u00b2\u00b3]?)?|[cdk]?m[23]|\u00b0[CFcf]?)?"
    r"\s*[)\-]?\s*"
)
_FRACTION = re.compile(r"\s*\d+(?: \d+)?\s*/\s*\d+\s*")
_UNIT_WORDS = (
    "kg mg lb lbs oz km cm mm mi ft ml cl hr hrs min mins sec secs ms day days week weeks month months year years yr "
    "yrs hour hours minute minutes second seconds gb mb kb tb kw kwh mw mwh hz khz mhz ghz mph kmh rpm pcs bps bn mio "
    "mrd kcal cal cc hp ps bhp pt px dpi gal qt ppm km/h m/s m2 m3 m\u00b2 m\u00b3"
)
_UNITS = frozenset(_UNIT_WORDS.split())
"""Words after a number that are units even if a column has several of them."""

_SHORT_UNITS = frozenset("bdghklmstvw")
"""The same, beside another unit."""

_TOKEN_WORDS = (
    "na n/a n.a. nan null none nil - -- --- ? . \u2013 \u2014 unknown missing #n/a #na #value! #div/0! #ref! <na> nat "
    "inf -inf infinity -infinity"
)
TOKENS = frozenset(_TOKEN_WORDS.split())
"""What people write for a gap, in small letters."""


def is_token(value: str) -> bool:
    """Return whether a text is what people write for a gap."""
    return value.strip().casefold() in TOKENS or not value.strip()


def number_pattern(decimal: str | None, thousands: str | None) -> re.Pattern[str]:
    """Return what a number looks like with these marks."""
    mark = re.escape(decimal or ".")
    digits = r"\d+"
    if thousands:
        digits = rf"(?:\d{{1,3}}(?:[{re.escape(_GROUPS.get(thousands, thousands))}]\d{{3}})+|\d+)"
    return re.compile(rf"\s*[+-]?(?:{digits}(?:{mark}\d*)?|{mark}\d+)(?:[eE][+-]?\d+)?\s*")


PLAIN = number_pattern(None, None)


def to_number(value: str, decimal: str | None, thousands: str | None) -> float:
    """Return the number that a text holds, which fits `number_pattern`."""
    for mark in _GROUPS.get(thousands, thousands) if thousands else "":
        value = value.strip().replace(mark, "")
    return float(value.replace(decimal or ".", "."))


def has_leading_zero(value: str) -> bool:
    """Return whether a text is a number with a 0 in front of another digit, as codes are."""
    return re.match(r"\s*[+-]?0\d", value) is not None


def written_otherwise(values: Sequence[str], plain: re.Pattern[str]) -> list[bool] | None:
    """Return which texts look like numbers, plain or not; None if what follows the numbers makes kinds of them.

    '12kg' and '7kg' are numbers with a unit. '1A', '2A', '1B' are kinds: more than one word that is no unit, and few
    numbers before each.
    """
    found = [None if plain.fullmatch(v) else _OTHERWISE.fullmatch(v) for v in values]
    ends = [(m["core"], m["after"]) for m in found if m and m["after"] and not _is_money(m)]
    words = {after.casefold() for _, after in ends if after[0] not in "%\u2030\u00b0"}
    odd = words - _UNITS - (_SHORT_UNITS if words & (_UNITS | {"k"}) else set())
    if odd and len({core for core, after in ends if after.casefold() in odd}) < 3 * len(odd):
        return None
    return [
        m is not None or plain.fullmatch(v) is not None or _FRACTION.fullmatch(v) is not None
        for v, m in zip(values, found, strict=True)
    ]


def _is_money(match: re.Match[str]) -> bool:
    return bool(match["before"]) or re.fullmatch(_CURRENCY, match["after"] or "") is not None


def way_out(value: str, decimal: str | None) -> str:
    """Return what a text is that looks like a number, and what to do about it, given the decimal mark."""
    text = value.strip()
    other = "or list the column in drop or categorical"
    match = _OTHERWISE.fullmatch(text)
    if _FRACTION.fullmatch(text):
        return f"a fraction; write it as one number in the file, {other}"
    if PLAIN.fullmatch(text) and decimal == ",":
        return f"a number whose decimal mark is not '{decimal}'; write all numbers in the file alike, {other}"
    if match is None or PLAIN.fullmatch(text):
        return f"a number as text; set decimal: '.', which reads such columns as numbers, {other}"
    if "%" in text or "\u2030" in text:
        return f"a number with a percent sign; take the sign out of the file, {other}"
    if _is_money(match):
        return f"a number with a currency; take it out of the file, {other}"
    if match["after"]:
        return f"a number with a unit; take the unit out of the file, {other}"
    if match["open"] or text.endswith(("-", ")")) or "\u2212" in text:
        return f"a number with an unusual sign; write - before it in the file, {other}"
    return f"a number with {_marks(match['core'])}, {other}"


def _marks(core: str) -> str:
    """Return which settings read the marks in a number."""
    found = [mark for mark in core if not mark.isdigit()]
    kinds = list(dict.fromkeys("'" if m == "\u2019" else " " if m in _SPACES else m for m in found))
    if not kinds:
        return "digits of another script or more than a number holds; write it otherwise in the file"
    groups = re.fullmatch(r"\d{1,3}(?:\D\d{3})+", core) is not None
    if "_" in kinds:
        return "_ between thousands; take it out of the file"
    if len(kinds) > 1:
        return f'marks for thousands and decimals; set thousands: "{kinds[0]}" and decimal: "{kinds[-1]}"'
    if kinds[0] == "," and groups and len(found) == 1:
        return 'a comma; set thousands: "," if it stands between thousands, or decimal: "," if it is the decimal mark'
    if len(found) > 1 or kinds[0] in " '":
        return f'marks between thousands; set thousands: "{kinds[0]}"'
    return f'a decimal mark of its own; set decimal: "{kinds[0]}"'
