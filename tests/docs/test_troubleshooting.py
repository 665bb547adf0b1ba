"""Troubleshooting says what the code says: each sentence that it quotes is there, and each that a person can meet is quoted."""

import ast
import re
from collections.abc import Iterator
from functools import cache

import pytest

from tests.docs.pages import DOCS, ROOT, fences
from tortie.controller import status

PAGE = (DOCS / "troubleshooting.md").read_text()
_HEADING = re.compile(r"^#{2,3} (.*)$", re.MULTILINE)
_ANCHOR = re.compile(r"\{#([^}]+)\}$")
_GO_TEXT = re.compile(r'"((?:[^"\\]|\\.)*)"')
_GO_ERROR = re.compile(r'(?:NewError\([\w.]+|tryLater\(|misunderstood\()[,\s]*(?:fmt\.Sprintf\(\s*)?"((?:[^"\\]|\\.)*)"')
# Parts of a format, of Python's logging and of Go.
_PLACES = re.compile(r"%[-+.\dl]*[a-z]")
# A piece of a sentence that is shorter could be anywhere.
LONG = 12
# What the exceptions that reach people are called.
ERRORS = {
    "Closed",
    "NotEnforced",
    "Refused",
    "NoPool",
    "Exhausted",
    "CniError",
    "WireError",
    "NotDurable",
    "NotInstalled",
    "BadMethod",
    "_need",
}


def text_of(node: ast.expr) -> str:
    """Return a text of the source, with … for what is put in at run time."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return _PLACES.sub("…", node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(value) if isinstance(value, ast.Constant) else "…" for value in node.values)
    return ""


@cache
def trees() -> list[ast.Module]:
    return [ast.parse(path.read_text()) for path in (ROOT / "operator").rglob("*.py")]


@cache
def said_by_the_code() -> str:
    """Return every text of Python, Go and the chart, one a line."""
    texts = [text_of(node) for tree in trees() for node in ast.walk(tree) if isinstance(node, ast.Constant | ast.JoinedStr)]
    for path in (ROOT / "cni").glob("*.go"):
        source = re.sub(r'"\s*\+\s*"', "", path.read_text())
        texts += [_PLACES.sub("…", text.replace(r"\"", '"')) for text in _GO_TEXT.findall(source)]
    return "\n".join([*texts, (ROOT / "helm/tortie/templates/agent-rights.yaml").read_text()])


def quoted() -> list[str]:
    """Return the sentences that the page quotes."""
    return [line for block in fences(PAGE, "text") for line in block.splitlines()]


def pieces(sentence: str) -> list[str]:
    """Return what stands between the places, without what only joins a problem, a place and a way out."""
    found = re.split(r"…|^; |; (?=\b)| @ ", sentence)
    return [piece for piece in found if piece.strip(" ;:")]


@pytest.mark.parametrize("sentence", quoted())
def test_what_is_quoted_is_what_the_code_says(sentence: str) -> None:
    assert [piece for piece in pieces(sentence) if piece not in said_by_the_code()] == []


def sentences() -> Iterator[str]:
    """Yield what the code says to people when something is wrong: errors that reach them, warnings and errors in the logs."""
    for tree in trees():
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            function = call.func
            warns = isinstance(function, ast.Attribute) and function.attr in {"warning", "error", "exception"}
            raises = isinstance(function, ast.Name) and function.id in ERRORS
            if warns or raises:
                yield from (text for text in map(text_of, call.args) if any(len(piece) >= LONG for piece in pieces(text)))


def errors_of_the_plugin() -> Iterator[str]:
    """Yield the messages of the plugin's errors, without their details."""
    for path in (ROOT / "cni").glob("*.go"):
        if not path.name.endswith("_test.go"):
            source = re.sub(r'"\s*\+\s*"', "", path.read_text())
            for match in _GO_ERROR.finditer(source):
                yield _PLACES.sub("…", match[1])


def test_what_a_person_can_meet_is_there() -> None:
    known = [piece for sentence in quoted() for piece in pieces(sentence) if len(piece) >= LONG]
    assert list(errors_of_the_plugin()), "they are written in another way now"
    assert [said for said in (*sentences(), *errors_of_the_plugin()) if not any(piece in said for piece in known)] == []


def test_every_reason_is_there() -> None:
    reasons = {value for name, value in vars(status).items() if name.isupper() and isinstance(value, str)}
    reasons |= {
        "NotBuiltYet",
        "RouteMissing",
        "ForeignFirewallDrops",
        "TortieIsUp",
        "SessionDown",
        "ObjectNotFollowed",
        "BGPSessionsUp",
    }
    assert [reason for reason in sorted(reasons) if f"`{reason}`" not in PAGE] == []
    assert [reason for reason in sorted(reasons) if f'"{reason}"' not in source()] == []


def source() -> str:
    return "".join(path.read_text() for path in (ROOT / "operator").rglob("*.py"))


def test_every_heading_has_an_anchor_of_its_own_that_stays() -> None:
    headings = _HEADING.findall(PAGE)
    symptoms = [h for h in headings if f"### {h}" in PAGE]
    anchors = [match[1] for heading in headings if (match := _ANCHOR.search(heading))]
    assert [heading for heading in symptoms if not _ANCHOR.search(heading)] == []
    assert len(anchors) == len(set(anchors))
    assert [anchor for anchor in anchors if not re.fullmatch(r"[a-z0-9-]+", anchor)] == []
