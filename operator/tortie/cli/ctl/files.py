"""Manifests in files: a file, every one in a folder and the folders in it, or standard input."""

import itertools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import click
import yaml
from yaml import CSafeLoader  # libyaml's, which PyYAML's wheels bring: ten times as fast

from tortie.cli.ctl.cluster import Object

_SUFFIXES = frozenset({".yaml", ".yml", ".json"})


class _Loader(CSafeLoader):
    """YAML as Kubernetes reads it: 64512:10 is a text and not a number to the base 60, and a date is a text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in known if not tag.endswith((":timestamp", ":int", ":float"))]
    for first, known in CSafeLoader.yaml_implicit_resolvers.items()
}
for _tag, _pattern in (
    ("int", r"^[-+]?(0|[1-9][0-9]*|0x[0-9a-fA-F]+|0o?[0-7]+)$"),
    ("float", r"^[-+]?([0-9]+[.][0-9]*|[.][0-9]+|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?$"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list("-+.0123456789"))


def read(path: str) -> Iterator[tuple[str, Object]]:
    """Yield where each object stands, and the object; raises ClickException."""
    for file in _files(path):
        with _opened(file) as stream:
            yield from _documents(stream, file)


def _files(path: str) -> list[str]:
    if path == "-" or not Path(path).is_dir():
        return [path]
    found = sorted(str(file) for file in Path(path).rglob("*") if file.suffix in _SUFFIXES and file.is_file())
    if not found:
        raise click.ClickException(f"{path} has no file that ends in .yaml, .yml or .json")
    return found


def _opened(file: str) -> IO[str]:
    try:
        return click.open_file(file, encoding="utf-8")
    except OSError as error:
        raise click.ClickException(f"{file} can't be read: {error.strerror}") from error


def _documents(stream: IO[str], file: str) -> Iterator[tuple[str, Object]]:
    documents = yaml.load_all(stream, _Loader)
    for number in itertools.count(1):
        try:
            document = next(documents)
        except StopIteration:
            return
        except (yaml.YAMLError, ValueError, OSError, RecursionError) as error:
            reason = " ".join(str(error).split())
            raise click.ClickException(f"{file}, document {number} can't be read as YAML or JSON: {reason}") from error
        if document is not None:
            yield from _objects(document, f"{file}, document {number}")


def _objects(document: Any, where: str) -> Iterator[tuple[str, Object]]:
    """Yield the objects of a document: itself, or the items of a list of whatever kind."""
    kind = document.get("kind") if isinstance(document, Mapping) else None
    if not isinstance(document, Mapping) or not isinstance(kind, str):
        raise click.ClickException(f"{where} is no Kubernetes object: it has no kind")
    if not kind.endswith("List"):
        yield where, document
        return
    items = document.get("items") or []
    if not isinstance(items, list):
        raise click.ClickException(f"{where}: items must be a list")
    for number, item in enumerate(items, 1):
        if not isinstance(item, Mapping):
            raise click.ClickException(f"{where}: an item is no object")
        typed = {"apiVersion": document.get("apiVersion"), "kind": kind.removesuffix("List"), **item}
        yield from _objects(typed, f"{where}, item {number}")
