"""The pages with code: README and docs, cut into blocks with what a comment above each says of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
MARKS = {"file", "shortened", "release", "not run", "uses", "needs", "mnist", "output"}
"""What a comment above a block may say; CONTRIBUTING.md explains each."""

ELSEWHERE = {
    "docs/your-own-method.md": "tests/cluster/test_own_method.py writes its files and runs its commands",
    "CONTRIBUTING.md": "its one command is what CI runs",
    "docs/conformance.md": "its one command is what is run before a release",
}
"""Pages whose commands are run by something else."""

_COMMENT = re.compile(r"<!-- ([\w ]+?)(?:: (.*?))? -->$")


@dataclass
class Block:
    """A fenced block of code.

    Args:
        page: path of its page, from the root.
        line: number of its first line within the fence, from 1.
        language: as the fence says.
        text: its content.
        marks: what the comments above it say.
    """

    page: str
    line: int
    language: str
    text: str
    marks: dict[str, str] = field(default_factory=dict)

    @property
    def commands(self) -> list[str]:
        """Return the commands of a console or bash block, without comments."""
        lines = [line.removeprefix("$ ") for line in self.text.splitlines()]
        return [command for line in lines if (command := re.sub(r"\s+# .*|^#.*", "", line).strip())]


def page_names() -> list[str]:
    """Return README, CONTRIBUTING and every page of the docs that is in git."""
    docs = [path for path in sorted((ROOT / "docs").rglob("*.md")) if "reference" not in path.parts]
    return ["README.md", "CONTRIBUTING.md", *(path.relative_to(ROOT).as_posix() for path in docs)]


def blocks_of(page: str) -> list[Block]:
    """Return the blocks of a page in order.

    Raises:
        ValueError: if a comment above a block says something unknown.
    """
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    blocks: list[Block] = []
    marks: dict[str, str] = {}
    number = 0
    while number < len(lines):
        line = lines[number]
        number += 1
        if comment := _COMMENT.match(line):
            if comment[1] not in MARKS:
                raise ValueError(f"{page}:{number}: unknown comment '{comment[1]}'; expected one of {sorted(MARKS)}")
            marks[comment[1]] = comment[2] or ""
        elif line.startswith("```"):
            end = lines.index("```", number)
            if not line.startswith("```{"):
                text = "".join(f"{inner}\n" for inner in lines[number:end])
                blocks.append(Block(page, number + 1, line[3:].strip(), text, marks))
            marks, number = {}, end + 1
        elif line.strip():
            marks = {}
    return blocks


def source_of(blocks: Sequence[Block], number: int) -> int | None:
    """Return which block prints what a sample shows, the nearest before it that runs; it may have been left out."""
    runs = [n for n in range(number) if not blocks[n].marks.keys() & {"output", "file"}]
    return runs[-1] if runs else None
