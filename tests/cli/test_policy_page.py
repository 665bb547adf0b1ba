"""The examples of docs/policy.md print what stands below them."""

import re
import shlex

import pytest
from click.testing import CliRunner

from tests.docs.pages import DOCS, ROOT
from tortie.cli.ctl.main import main

PAGE = DOCS / "policy.md"
_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def examples(text: str) -> list[tuple[str, str]]:
    """Each command of the page, and what stands below it."""
    shown = [part for block in _BLOCK.findall(text) for part in block.split("$ ")[1:]]
    return [(command, said) for command, _, said in (part.partition("\n") for part in shown)]


def printed(command: str) -> str:
    program, *arguments = shlex.split(command)
    assert program == "tortiectl"
    return CliRunner().invoke(main, arguments).stdout


@pytest.mark.parametrize(("command", "said"), examples(PAGE.read_text()))
def test_the_page_shows_what_is_printed(monkeypatch: pytest.MonkeyPatch, command: str, said: str) -> None:
    monkeypatch.chdir(ROOT)
    assert [line.rstrip() for line in printed(command).splitlines()] == said.splitlines()
