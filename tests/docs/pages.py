"""The documentation's pages, read as text: their code, their links, their headings."""

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
AT_THE_ROOT = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]

_FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")


def pages() -> list[Path]:
    """Return every page, those at the repository's root included."""
    return [*AT_THE_ROOT, *sorted(DOCS.rglob("*.md"))]


def fences(text: str, language: str) -> Iterator[str]:
    """Yield the fenced blocks of a language."""
    for match in _FENCE.finditer(text):
        if match[1] == language:
            yield match[2]


def spans(text: str) -> list[str]:
    """Return what stands in single backticks."""
    return _SPAN.findall(_FENCE.sub("", text))


def command_lines(text: str) -> Iterator[str]:
    """Yield what a person would type: console lines behind a `$`, continued ones joined, and code in sentences."""
    for block in fences(text, "console"):
        for line in block.replace("\\\n", " ").splitlines():
            if line.strip().startswith("$ "):
                yield line.strip()[2:]
    yield from spans(text)
