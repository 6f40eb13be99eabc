"""How CSV files begin and are written: names, separators, comments, encodings; and kinds that look alike."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.streams.conftest import Load, Refused

ROWS = [f"{number},{'yes' if number % 2 else 'no'},{'a' if number < 5 else 'b'}" for number in range(1, 9)]
TEXT = "\n".join(["x,y,q", *ROWS]) + "\n"
PLAIN = (3,)


def each_row(change: str, header: str = "{}") -> str:
    return "\n".join([header.format("x,y,q"), *(change.format(row) for row in ROWS)]) + "\n"


# Names.


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("y,y,q", "has two columns 'y', at 1 and 2; rename one"),
        ("x,y,y", "has two columns 'y', at 2 and 3; rename one"),
        ("x,y,x ", "has the columns 'x' and 'x ', which differ only in spaces or in how letters are coded; rename one"),
        ("pr\u00e9,y,pre\u0301", "has the columns 'pr\\xe9' and 'pre\\u0301', which differ only in spaces"),
        (",y,q", "column 1 of '"),
        ("x,y,", "column 3 of '"),
    ],
)
def test_names_that_are_not_one_are_refused(refused: Refused, header: str, said: str) -> None:
    assert said in refused(TEXT.replace("x,y,q", header))


def test_an_index_that_pandas_saved_is_refused(load_table: Load, refused: Refused) -> None:
    text = pd.DataFrame({"x": range(6), "y": ["no", "yes"] * 3}).to_csv()
    assert 'has no name and counts the rows, as an index that pandas saved; set drop: ["Unnamed: 0"]' in refused(text)
    data = load_table(text, drop=["Unnamed: 0"])
    assert data.report is not None
    assert (data.facts.shape, data.report.dropped) == ((1,), ("Unnamed: 0",))
    twice = text.replace(",x", "Unnamed: 0,x", 1)
    assert "counts the rows" in refused(twice)


@pytest.mark.parametrize(
    ("header", "label"),
    [
        ("x,pr\u00e9nom,q", "pre\u0301nom"),
        ("x,pre\u0301nom,q", "pr\u00e9nom"),
        ("\ufeffx,y,q", "y"),
        ("x, y ,q", "y"),
        ("x,y,q", " y "),
    ],
)
def test_a_name_is_found_in_any_form(load_table: Load, header: str, label: str) -> None:
    assert load_table(TEXT.replace("x,y,q", header), label=label).facts.shape == PLAIN


def test_the_mark_at_the_start_is_no_part_of_the_first_name(load_table: Load) -> None:
    text = "\ufeff" + TEXT.replace("x,y,q", "id,y,q")
    assert load_table(text, drop=["id"]).facts.shape == (2,)
    assert load_table(text.encode("utf-16"), drop=["id"]).facts.shape == (2,)


# Lines, separators and fields.


def test_comments_at_the_start_are_left_out_with_a_note(load_table: Load, refused: Refused) -> None:
    data = load_table("# exported\n# on Monday\n" + TEXT)
    assert data.report is not None
    assert data.facts.shape == PLAIN
    assert data.report.notes[0].startswith("2 lines at the start of '")
    assert "starts with '#' and may be a comment or the header; delete the line" in refused("#" + TEXT)


def test_the_first_line_of_excel_is_understood(load_table: Load, refused: Refused) -> None:
    text = "sep=;\n" + TEXT.replace(",", ";")
    assert load_table(text).facts.shape == PLAIN
    assert load_table(text, separator=";").facts.shape == PLAIN
    assert "says sep=; in its first line and the settings say separator: '|'" in refused(text, separator="|")


def test_a_separator_too_many_is_left_out(load_table: Load, refused: Refused) -> None:
    rows = load_table(each_row("{},"))
    assert rows.report is not None
    assert rows.facts.shape == PLAIN
    assert rows.report.notes[0].endswith("ends with a ',' too many, which is left out")
    both = load_table(each_row("{},", "{},"))
    assert both.report is not None
    assert both.facts.shape == PLAIN
    assert both.report.left_out[0].endswith("has neither a name nor a value and is left out")
    assert "has 4 fields and its header 3; name each column" in refused(each_row("{},9"))
    assert "Expected 3 fields in line 10, saw 4" in refused(TEXT + "9,no,a,4\n")
    assert "has 3 fields and its header 1" in refused("Report of 2024\n" + TEXT)


@pytest.mark.parametrize(
    ("mark", "shown"),
    [(";", "separator: ';'"), ("\t", 'separator: "\\t"'), ("|", "separator: '|'"), (" ", "separator: ' '")],
)
def test_another_separator_is_named_and_read(load_table: Load, refused: Refused, mark: str, shown: str) -> None:
    text = TEXT.replace(",", mark)
    assert f"set {shown}" in refused(text)
    assert load_table(text, separator=mark).facts.shape == PLAIN


def test_decimal_commas_between_semicolons(load_table: Load, refused: Refused) -> None:
    text = "\n".join(["x;y", *(f"{number},5;{'yes' if number % 2 else 'no'}" for number in range(8))]) + "\n"
    assert "set separator: ';'" in refused(text)
    assert 'set decimal: ","' in refused(text, separator=";")
    assert load_table(text, separator=";", decimal=",").facts.n_numbers == 1


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_encodings_with_a_mark_are_read(load_table: Load, encoding: str) -> None:
    data = load_table(TEXT.replace("no", "n\u00f6").encode(encoding))
    assert data.facts.class_names == ("n\u00f6", "yes")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            TEXT.replace("no", "n\u00f6").encode("latin-1"),
            "is not UTF-8: it holds the byte 0xf6, which may be '\u00f6'",
        ),
        (TEXT.replace("x,", "\u00f6,").encode("latin-1"), "is not UTF-8: it holds the byte 0xf6"),
        (TEXT.encode("utf-16-le"), "or UTF-16 without a mark at its start; save it as UTF-8"),
        (b"PK\x03\x04" + bytes(40), "is an Excel or zip file and no text"),
        (b"PAR1" + bytes(40), "is a Parquet file and no text"),
        (b"\xff\xfe\x00", "is marked as utf-16 but is not"),
        (b"\n\n", "cannot be read (it is empty)"),
        (b'x,y\n1,"no\n2,yes\n', "cannot be read (Error tokenizing data"),
    ],
)
def test_other_bytes_are_refused_with_a_reason(refused: Refused, content: bytes, said: str) -> None:
    assert said in refused(content)


# Words and kinds.


@pytest.mark.parametrize(
    ("one", "other"), [("None", "NA"), ("null", "nan"), ("N/A", "True"), ("NaN", "-"), ("inf", "0")]
)
def test_only_an_empty_field_is_missing(load_table: Load, one: str, other: str) -> None:
    named = TEXT.replace("no", one).replace("yes", other)
    assert {*load_table(named).facts.class_names} == {one, other}
    tasks = TEXT.replace(",a", f",{one}").replace(",b", f",{other}")
    assert {*load_table(tasks, task="q").facts.task_names} == {one, other}
    kinds = load_table(tasks, categorical=["q"]).report
    assert kinds is not None
    assert kinds.kinds == {"q": 2}


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        ("yes", "yes ", "holds 'yes' and 'yes ', which differ only in spaces"),
        ("yes", " YES", "holds 'yes' and ' YES', which differ only in spaces"),
        ("a b", "a  b", "holds 'a b' and 'a  b', which differ only in spaces"),
        ("\u00e9", "e\u0301", "which differ only in spaces or in how letters are coded"),
        ("01", "1", "holds '01' and '1', which differ only in a 0 in front"),
        ("1", "001", "which differ only in a 0 in front"),
    ],
)
@pytest.mark.parametrize("use", [{"label": "c"}, {"task": "c"}, {"categorical": ["c"]}])
def test_kinds_that_look_alike_are_refused(
    refused: Refused, one: str, other: str, said: str, use: dict[str, Any]
) -> None:
    text = "c,x,y\n" + "".join(f"{kind},{n},{y}\n" for n, (kind, y) in enumerate([(one, "n"), (other, "m")] * 4))
    assert said in refused(text, **use)


def test_leading_zeros_are_kept(load_table: Load) -> None:
    text = "x,y\n" + "1,01\n2,02\n" * 4
    assert load_table(text).facts.class_names == ("01", "02")
    assert load_table("x,y\n" + "1,1\n2,2.0\n" * 4).facts.class_names == ("1", "2")


def test_capitals_are_noted(load_table: Load) -> None:
    data = load_table("x,y\n" + "1,Yes\n2,yes\n" * 4)
    assert data.report is not None
    assert data.report.notes == ("column 'y' holds 'Yes' and 'yes', which are two kinds",)


# Parquet.


def test_a_named_index_is_a_column(load_table: Load) -> None:
    frame = pd.DataFrame({"x": range(8)}, index=pd.Index(["no", "yes"] * 4, name="y"))
    assert load_table(frame, suffix=".parquet").facts.class_names == ("no", "yes")
    counted = pd.DataFrame({"x": range(8), "y": ["no", "yes"] * 4}, index=pd.RangeIndex(8, name="id"))
    data = load_table(counted, suffix=".parquet")
    assert data.facts.shape == (2,)
    unnamed = load_table(counted.set_axis(list("abcdefgh"), axis=0), suffix=".parquet").report
    assert unnamed is not None
    assert unnamed.left_out[0].endswith("has no name and is left out")


def test_a_name_twice_in_parquet_is_refused(load_table: Load, refused: Refused, tmp_path: Any) -> None:
    twice = pa.table([pa.array([1, 2] * 4), pa.array(["a", "b"] * 4), pa.array([1] * 8)], names=["x", "y", "x"])
    pq.write_table(twice, tmp_path / "twice.parquet")
    assert "has two columns 'x', at 1 and 3" in refused((tmp_path / "twice.parquet").read_bytes(), suffix=".parquet")
