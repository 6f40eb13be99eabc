"""YAML that anyone may have written: bounded, and no key twice."""

from __future__ import annotations

import math
from typing import Any

import pytest
import yaml

from orchestrator.spec import safe_yaml
from orchestrator.spec.safe_yaml import AmbiguousError, TooLargeError, dump_yaml, load_yaml


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("name: a\nmethods: [ewc]\n'name': b\n", "the key 'name' is on line 1 and again on line 3"),
        ("search:\n  batch: 1\n  batch: 1\n", "the key 'batch' is on line 2 and again on line 3"),
        ("- {1: a, 1: b}\n", "the key '1' is on line 1 and again on line 1"),
        ("b: {1: a,\n '1': b}\n", "the key '1' is on line 1 and again on line 2"),
        ("1: a\n1.0: b\n", "the key '1.0' is on line 1 and again on line 2"),
        ("1e2: a\n0x64: b\n", "the key '0x64' is on line 1 and again on line 2"),
        ('a: {x: 1, "x": 2}\n', "the key 'x' is on line 1 and again on line 1"),
        ("a:\n  b:\n  - {c: 1,\n     'c': 2}\n", "the key 'c' is on line 3 and again on line 4"),
        ("true: a\n'true': b\n", "the key 'true' is on line 1 and again on line 2"),
        ("a: &a {x: 1}\nb: {<<: *a, y: 1, y: 2}\n", "the key 'y' is on line 2 and again on line 2"),
        ("search: &a\n  batch: 1\n  <<: *a\n", "the alias on line 3 is inside the anchor that it repeats"),
        ("a: [&a [*a]]\n", "the alias on line 1 is inside the anchor that it repeats"),
        ("a: *b\n", "found undefined alias 'b'"),
    ],
)
def test_what_means_two_things_is_refused(content: str, reason: str) -> None:
    with pytest.raises(yaml.YAMLError, match=reason):
        load_yaml(content.encode())


@pytest.mark.parametrize(
    ("content", "data"),
    [
        ("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\n", {"x": 1, "y": 3}),
        ("a: &a {x: 1, y: 2}\nb: {y: 3, <<: *a}\n", {"x": 1, "y": 3}),
        ("a: &a {x: 1}\nc: &c {x: 2, y: 2}\nb: {<<: [*a, *c]}\n", {"x": 1, "y": 2}),
        ("a: &a {x: 1}\nc: &c {y: 2}\nb:\n  <<: *a\n  <<: *c\n", {"x": 1, "y": 2}),
        ("a: &a {x: 1}\nc: &c {<<: *a, x: 2}\nb: {<<: *c, x: 3}\n", {"x": 3}),
        ("k: &k x\nb: {*k : 1}\n", {"x": 1}),
        ("a: {b: 0}\nb: {b: {b: 1}}\n", {"b": {"b": 1}}),
    ],
)
def test_merges_and_aliases_are_no_duplicates(content: str, data: dict[Any, Any]) -> None:
    assert load_yaml(content.encode())["b"] == data


@pytest.mark.parametrize(
    ("content", "n_entries"),
    [
        ("b: [1, 1]", 5),
        ("b: {c: d}", 5),
        ("a: &a [1, 1, 1]\nb: [*a, *a]", 1 + 2 + 4 + 1 + 8),
        ("a: &a [1]\nc: &c [*a, *a]\nb: [*c]", 1 + 3 + 2 + (1 + 4) + (1 + 5)),
        ("a: &a {x: 1}\nb: {<<: *a}", 1 + 2 + 3 + (1 + 1 + 3)),
    ],
)
def test_an_alias_counts_as_what_it_repeats(content: str, n_entries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safe_yaml, "MOST_ENTRIES", n_entries)
    assert load_yaml(content.encode())
    monkeypatch.setattr(safe_yaml, "MOST_ENTRIES", n_entries - 1)
    with pytest.raises(TooLargeError, match=f"at most {n_entries - 1} entries"):
        load_yaml(content.encode())


@pytest.mark.parametrize(("content", "n"), [("ab: cde", 5), ("a: &a bcd\nb: [*a, *a]", 1 + 3 + 1 + 6)])
def test_characters_are_counted_too(content: str, n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    text = content.encode()
    monkeypatch.setattr(safe_yaml, "MOST_BYTES", len(text))
    assert load_yaml(text)
    with pytest.raises(TooLargeError, match=f"at most {len(text)} bytes"):
        load_yaml(text + b" ")
    loader = safe_yaml._Loader(content)
    loader.get_single_node()
    assert loader._n_characters == n


def test_nothing_in_a_file_is_none() -> None:
    assert load_yaml(b"# nothing\n") is None


READINGS: dict[str, Any] = {
    "1e5": 1e5,
    "1e-3": 0.001,
    "-2.5E+3": -2500.0,
    "1.": 1.0,
    ".5": 0.5,
    "1_000": 1000,
    "0x10": 16,
    "-0": 0,
    ".inf": math.inf,
    "true": True,
    "False": False,
    "~": None,
    "null": None,
    "": None,
    "yes": "yes",
    "no": "no",
    "on": "on",
    "OFF": "OFF",
    "1:30": "1:30",
    "12:30:45": "12:30:45",
    "2024-01-01": "2024-01-01",
    "2024-01-01 10:00:00": "2024-01-01 10:00:00",
    "0o17": "0o17",
    "1e": "1e",
    "e5": "e5",
    "1.2.3": "1.2.3",
    "=": "=",
}
"""A scalar without quotes -> what it means."""


@pytest.mark.parametrize("text", READINGS)
def test_scalars_mean_what_they_look_like(text: str) -> None:
    read = load_yaml(f"a: {text}\n".encode())["a"]
    assert (read, type(read)) == (READINGS[text], type(READINGS[text]))
    assert load_yaml(f"a: '{text}'\n".encode())["a"] == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("010", "'010' on line 2 begins with 0, which YAML may take for an octal number; write 10 if it is a number"),
        ("-007", "write 7 if it is a number, '-007' in quotes if it is text"),
        ("08", "write 8 if it is a number"),
        ("00", "write 0 if it is a number"),
    ],
)
def test_a_number_with_two_readings_is_refused(text: str, said: str) -> None:
    with pytest.raises(AmbiguousError) as caught:
        load_yaml(f"b: 1\na: {text}\n".encode())
    assert said in str(caught.value)


@pytest.mark.parametrize("text", [*READINGS, "010", "08", "-007", "<<", "#ff8800", "1:30.5", "y"])
def test_text_is_written_so_that_every_reader_reads_it(text: str) -> None:
    written = dump_yaml({"a": text, "b": [text], text: 1})
    for read in (load_yaml(written.encode()), yaml.safe_load(written)):
        assert read == {"a": text, "b": [text], text: 1}


def test_numbers_are_written_as_before() -> None:
    data = {"a": [1, 1e-5, 1e22, 0.1, True, None, -3], "b": "text"}
    assert dump_yaml(data) == yaml.safe_dump(data, sort_keys=False)
