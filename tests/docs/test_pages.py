"""The site builds, every link leads somewhere, and every command that a page quotes exists."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from tests.docs import reference
from tests.docs.pages import AT_THE_ROOT, DOCS, ROOT, command_lines, pages, spans
from tests.docs.reference.chart import values
from tests.docs.reference.commands import PROGRAMS
from tortie.api.kinds import KINDS

OURS = {name for kind in KINDS for name in (kind.plural, kind.__name__.lower(), *kind.short_names)}
# Kubernetes' own kinds that the pages speak of.
OTHERS = {"pods", "pod", "nodes", "node", "events", "lease", "namespaces", "deployment", "daemonset"}
# Options of kubectl and helm with a value behind them, which is no kind.
_VALUED = {"-n", "-o", "-l"}
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_OUTSIDE = re.compile(r"""(?:<link[^>]*href|<script[^>]*src|<img[^>]*src)=["'](?:https?:)?//""")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    # Not --quiet: that hides warnings from --strict as well.
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_site_builds_and_its_links_and_anchors_lead_somewhere(site: Path) -> None:
    assert (site / "troubleshooting.html").is_file()


def test_the_site_needs_nothing_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        assert not _OUTSIDE.search(page.read_text()), page


def test_generated_pages_are_current() -> None:
    for name, text in reference.files().items():
        assert (DOCS / "reference" / name).read_text() == text, f"{name}: run `make generate`"


def test_every_value_of_the_chart_has_a_meaning() -> None:
    assert [one.name for one in values() if not (one.comment or one.below)] == []


def test_every_option_has_a_meaning() -> None:
    table = reference.files()["commands.md"]
    rows = [re.split(r" \| ", line) for line in table.splitlines() if line.startswith("| `-")]
    assert [cells[0] for cells in rows if not cells[3]] == []


@pytest.mark.parametrize("page", AT_THE_ROOT, ids=lambda page: page.name)
def test_links_of_pages_outside_the_site(page: Path) -> None:
    links = [link.partition("#")[0] for link in _LINK.findall(page.read_text()) if "://" not in link]
    named = [span for span in spans(page.read_text()) if re.fullmatch(r"(docs|operator|tests|helm|crds)/[\w./-]+", span)]
    assert [path for path in (*links, *named) if path and not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_that_are_quoted_exist(page: Path) -> None:
    wrong = [f"{line}: {why}" for line in command_lines(page.read_text()) for why in problems(line)]
    assert wrong == []


def problems(line: str) -> Iterator[str]:
    """Yield what isn't there of a command line: of ours a command or an option, of kubectl's a kind."""
    try:
        program, *words = shlex.split(line.partition(" | ")[0])
    except ValueError:
        return  # a piece of a sentence
    if program == "kubectl" and words[:1] == ["tortie"]:
        program, words = "tortiectl", words[1:]
    if program in PROGRAMS:
        yield from _unknown(click.Context(PROGRAMS[program], info_name=program), words)
    elif program == "kubectl" and words[:1] == ["get"] and len(words) > 1:
        yield from _no_kind(words[1:])


def _unknown(context: click.Context, words: list[str]) -> Iterator[str]:
    known = {name for one in context.command.params for name in (*one.opts, *one.secondary_opts)} | {"--help"}
    for position, word in enumerate(words):
        if word.startswith("-"):
            if word.partition("=")[0] not in known:
                yield f"{context.command_path} has no option {word}"
        elif isinstance(context.command, click.Group) and (not position or not words[position - 1].startswith("-")):
            below = context.command.get_command(context, word)
            if below is None:
                yield f"{context.command_path} has no command {word}"
            else:
                yield from _unknown(click.Context(below, info_name=word, parent=context), words[position + 1 :])
            return


def _no_kind(words: list[str]) -> Iterator[str]:
    named = [w for i, w in enumerate(words) if not w.startswith("-") and (not i or words[i - 1] not in _VALUED)]
    for kind in named[0].split(",") if named else ():
        if kind.removesuffix(".tortie.dev") not in OURS | OTHERS:
            yield f"kubectl gets no {kind}"


QUOTED = {
    "tortiectl ipam show --blocks": [],
    "tortiectl ipam shaw": ["tortiectl ipam has no command shaw"],
    "kubectl tortie ipam show --block": ["tortiectl ipam show has no option --block"],
    "tortie agnt": ["tortie has no command agnt"],
    "kubectl get -n tortie-system ippool,ipblock": ["kubectl gets no ipblock"],
    "kubectl get nodenetworks -o wide | grep x": [],
}


@pytest.mark.parametrize("line", QUOTED)
def test_what_is_found_in_a_command_line(line: str) -> None:
    assert list(problems(line)) == QUOTED[line]
