"""pydantic's errors in the words of somebody who writes YAML: what was expected, and what to do."""

from __future__ import annotations

from typing import Any

_RULES = {
    "missing": "a value",
    "too_short": "a list of {min_length} or more",
    "too_long": "{max_length} entries or fewer",
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "{ge:g} or more",
    "less_than": "less than {lt:g}",
    "less_than_equal": "{le:g} or less",
    "finite_number": "a finite number",
    "literal_error": "{expected}",
    "string_pattern_mismatch": "letters, digits, '.', '_' and '-', at most 64, the first a letter or digit",
    "string_type": "text",
    "invalid_key": "text as a key",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
}
"""Type of an error -> what was expected. The pattern is that of names: no other field has one."""

_WAYS_OUT = {
    "missing": "add it",
    "too_long": "list fewer",
    "greater_than": "raise it",
    "greater_than_equal": "raise it",
    "less_than": "lower it",
    "less_than_equal": "lower it",
    "literal_error": "choose one of them",
    "string_pattern_mismatch": "choose another name",
    "invalid_key": "put it in quotes",
}


def rule_of(error: Any) -> str:
    """Return what was expected. A validator of ours states it, and may add a way out after ';'.

    Args:
        error: one of pydantic's `ValidationError.errors()`.
    """
    if error["type"] in _RULES:
        return _RULES[error["type"]].format(**error.get("ctx", {}))
    rule: str = error["msg"].removeprefix("Input should be ").removeprefix("Value error, ").partition("; ")[0]
    return rule[:1].lower() + rule[1:]


def way_out_of(error: Any) -> str | None:
    """Return what to do about an error, or None if its type does not tell it."""
    if error["type"] == "value_error":
        return error["msg"].partition("; ")[2] or None
    return _WAYS_OUT.get(error["type"])
