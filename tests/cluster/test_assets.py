"""Where a command is taken from, with folders of fake commands."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cluster import assets, releases
from tests.cluster.assets import ASSETS, MissingAsset, find

RIGHT, WRONG = ASSETS["etcd"].version, "3.5.0"


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Empty places, the command's path in each; no release is pinned and there is no Go."""
    table = tmp_path / "releases.json"
    table.write_text('{"releases": []}')
    monkeypatch.setattr(releases, "TABLE", table)
    for name, folder in (("KUBEBUILDER_ASSETS", "given"), ("PATH", "path"), ("XDG_CACHE_HOME", "cache")):
        monkeypatch.setenv(name, str(tmp_path / folder))
    return {
        "KUBEBUILDER_ASSETS": tmp_path / "given" / "etcd",
        "PATH": tmp_path / "path" / "etcd",
        "cache": tmp_path / "cache" / "tortie" / RIGHT / "etcd",
    }


def fake(path: Path, version: str = RIGHT) -> Path:
    """Put a command that says its version."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho 'etcd Version: {version}'\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("there", "taken"),
    [
        pytest.param(["KUBEBUILDER_ASSETS", "PATH", "cache"], "KUBEBUILDER_ASSETS", id="the folder that was named wins"),
        pytest.param(["PATH", "cache"], "PATH", id="then PATH"),
        pytest.param(["cache"], "cache", id="then our cache"),
    ],
)
def test_the_first_place_that_has_it_wins(places: dict[str, Path], there: list[str], taken: str) -> None:
    for place in there:
        fake(places[place])
    assert find("etcd") == places[taken]


@pytest.mark.parametrize("version", [WRONG, RIGHT + "1", "1" + RIGHT, RIGHT + "-rc.1", RIGHT + ".1", ""])
def test_another_version_on_path_is_passed_over(places: dict[str, Path], version: str) -> None:
    fake(places["PATH"], version)
    cached = fake(places["cache"])
    assert find("etcd") == cached


def test_a_command_on_path_that_was_replaced_is_asked_again(places: dict[str, Path]) -> None:
    fake(places["PATH"], WRONG)
    cached = fake(places["cache"])
    assert find("etcd") == cached
    fake(places["PATH"].with_name("new")).replace(places["PATH"])
    assert find("etcd") == places["PATH"]


def test_missing_everywhere_names_each_place_and_the_way_out(places: dict[str, Path]) -> None:
    fake(places["PATH"], WRONG)
    with pytest.raises(MissingAsset) as caught:
        find("etcd")
    assert str(caught.value).splitlines() == [
        f"etcd v{RIGHT} is missing. Tried:",
        f"  KUBEBUILDER_ASSETS: no {places['KUBEBUILDER_ASSETS']}",
        f"  PATH: {places['PATH']} is another version: etcd Version: {WRONG}",
        f"  cache: no {places['cache']}",
        f"  release: releases.json has no release with etcd {RIGHT}",
        "  Go module: no `go` on PATH",
        "The way out: install Go 1.24 or newer so that it can be built, or set KUBEBUILDER_ASSETS to a folder that has"
        f" etcd {RIGHT}",
    ]


def test_a_build_that_fails_shows_the_compilers_words(places: dict[str, Path]) -> None:
    go = places["PATH"].with_name("go")
    go.parent.mkdir()
    go.write_text("#!/bin/sh\necho 'main.go:9: undefined: etcdmain' >&2\nexit 1\n")
    go.chmod(0o755)
    with pytest.raises(MissingAsset, match=r"main\.go:9: undefined: etcdmain"):
        find("etcd")
    assert not places["cache"].exists()


def test_a_build_fills_the_cache_once_for_all_who_ask(places: dict[str, Path]) -> None:
    go, runs = places["PATH"].with_name("go"), places["PATH"].with_name("runs")
    go.parent.mkdir()
    go.write_text(f'#!/bin/sh\necho . >> {runs}\nwhile [ "$1" != -o ]; do shift; done\necho > "$2"; /bin/chmod +x "$2"\n')
    go.chmod(0o755)
    found: list[Path] = []
    ask: Callable[[], None] = lambda: found.append(find("etcd"))  # noqa: E731
    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [places["cache"]] * 3
    assert runs.read_text() == ".\n"


def test_every_command_has_its_go_module_and_a_release_row() -> None:
    for asset in ASSETS.values():
        assert (assets.BINARIES / asset.module / "go.mod").exists(), asset
        if asset.name != "agnhost":  # it is released in an image alone
            assert releases.of(asset.name, asset.version).members[asset.name], asset
