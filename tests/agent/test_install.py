"""Where the plugin and its configuration are put, in which order, and what others' files there mean."""

import json
import os
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from tortie.agent.install import (
    CONFLIST,
    LAST_CONFLIST,
    PLUGIN,
    NotInstalled,
    Plugin,
    before_ours,
    install,
    remove,
    render,
    replace_conflist,
)

OURS = {"type": "tortie", "capabilities": {"portMappings": True}}


@pytest.fixture
def node(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A plugin that was built, and a node's folders of plugins and of configurations, not made yet."""
    binary = tmp_path / "built"
    binary.write_bytes(b"\x7fELF one")
    return binary, tmp_path / "opt/cni/bin", tmp_path / "etc/cni/net.d"


def contents(*folders: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for folder in folders if folder.exists() for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("plugin", "fields"),
    [
        pytest.param(Plugin(), {}, id="defaults are left out"),
        pytest.param(Plugin(socket=Path("/s")), {"socket": "/s"}, id="socket"),
        pytest.param(Plugin(deferred=Path("/d")), {"deferred": "/d"}, id="deferred"),
        pytest.param(Plugin(wait_seconds=0), {"waitSeconds": 0}, id="0 is a value"),
    ],
)
def test_configuration(plugin: Plugin, fields: dict[str, Any]) -> None:
    assert json.loads(render(plugin)) == {
        "cniVersion": "1.0.0",
        "cniVersions": ["0.3.1", "0.4.0", "1.0.0", "1.1.0"],
        "name": "tortie",
        "plugins": [OURS | fields],
    }


def test_both_are_put_in_place_and_left_alone_the_next_time(node: tuple[Path, Path, Path]) -> None:
    binary, bin_dir, conf_dir = node
    assert install(*node).changed == [bin_dir / PLUGIN, conf_dir / CONFLIST]
    assert contents(bin_dir, conf_dir) == {PLUGIN: binary.read_bytes(), CONFLIST: render(Plugin()).encode()}
    assert (bin_dir / PLUGIN).stat().st_mode & 0o777 == 0o755
    assert (conf_dir / CONFLIST).stat().st_mode & 0o777 == 0o600
    inodes = [(bin_dir / PLUGIN).stat().st_ino, (conf_dir / CONFLIST).stat().st_ino]
    assert install(*node).changed == []
    assert [(bin_dir / PLUGIN).stat().st_ino, (conf_dir / CONFLIST).stat().st_ino] == inodes


def chained(conflist: Path) -> None:
    content = json.loads(conflist.read_text())
    conflist.write_text(json.dumps(content | {"plugins": [{"type": "tortie"}, OURS | {"type": "portmap"}]}))


@pytest.mark.parametrize(
    ("spoil", "changed"),
    [
        pytest.param(lambda b, _: (b / PLUGIN).write_bytes(b"\x7fELF two"), [PLUGIN], id="another plugin of the same size"),
        pytest.param(lambda b, _: (b / PLUGIN).chmod(0o644), [PLUGIN], id="not to be executed"),
        pytest.param(lambda b, _: (b / PLUGIN).unlink(), [PLUGIN], id="plugin gone"),
        pytest.param(lambda _, c: (c / CONFLIST).write_text("{}"), [CONFLIST], id="configuration edited"),
        pytest.param(lambda b, _: (b / ".tortie.tmp").write_bytes(b"half"), [], id="a crash left half a plugin"),
        pytest.param(lambda _, c: chained(c / CONFLIST), [CONFLIST], id="portmap was chained, before an upgrade"),
    ],
)
def test_only_what_differs_is_replaced(node: tuple[Path, Path, Path], spoil: Any, changed: list[str]) -> None:
    install(*node)
    spoil(*node[1:])
    assert [path.name for path in install(*node).changed] == changed
    assert install(*node).changed == []


def test_what_a_crash_left_half_written_is_replaced(node: tuple[Path, Path, Path]) -> None:
    binary, bin_dir, conf_dir = node
    for folder, name in ((bin_dir, PLUGIN), (conf_dir, CONFLIST)):
        folder.mkdir(parents=True)
        (folder / f".{name}.tmp").write_bytes(b"half")
        (folder / f".{name}.tmp").chmod(0o400)
    install(*node)
    assert sorted(contents(bin_dir, conf_dir)) == [CONFLIST, PLUGIN]
    assert (bin_dir / PLUGIN).read_bytes() == binary.read_bytes()


def test_the_configuration_comes_last(node: tuple[Path, Path, Path]) -> None:
    _, bin_dir, conf_dir = node
    bin_dir.mkdir(parents=True)
    (bin_dir / PLUGIN / "in the way").mkdir(parents=True)
    with pytest.raises(NotInstalled, match=str(bin_dir / PLUGIN)):
        install(*node)
    assert contents(conf_dir) == {}


def test_the_configuration_goes_first(node: tuple[Path, Path, Path]) -> None:
    _, bin_dir, conf_dir = node
    install(*node)
    (conf_dir / CONFLIST).unlink()
    (conf_dir / CONFLIST).mkdir()  # can't be removed as a file
    with pytest.raises(NotInstalled, match=str(conf_dir / CONFLIST)):
        remove(bin_dir, conf_dir)
    assert (bin_dir / PLUGIN).exists()


def test_removal_leaves_what_is_others(node: tuple[Path, Path, Path]) -> None:
    _, bin_dir, conf_dir = node
    install(*node)
    for path in (bin_dir / "portmap", conf_dir / "87-podman.conflist"):
        path.write_text("theirs")
    assert remove(bin_dir, conf_dir) == [conf_dir / CONFLIST, bin_dir / PLUGIN]
    assert contents(bin_dir, conf_dir) == {"portmap": b"theirs", "87-podman.conflist": b"theirs"}
    assert remove(bin_dir, conf_dir) == []


@pytest.mark.parametrize(
    ("names", "found"),
    [
        pytest.param(["10-calico.conflist"], ["10-calico.conflist"], id="calico sorts before ours"),
        pytest.param(["99-loopback.conf", "10-weave.conf"], [], id="later ones"),
        pytest.param(["1.json", "00-multus.conf"], ["00-multus.conf", "1.json"], id="ordered"),
        pytest.param(["00-old.conflist.bak", "00-readme", ".10-tortie.conflist.tmp"], [], id="not read by runtimes"),
        pytest.param(["10-Tortie.conflist"], ["10-Tortie.conflist"], id="capitals come first"),
        pytest.param([CONFLIST], [], id="ours"),
    ],
)
def test_others_that_come_before_ours(names: list[str], found: list[str]) -> None:
    assert before_ours(names) == found


def test_another_network_that_comes_first_is_named_and_not_touched(node: tuple[Path, Path, Path]) -> None:
    conf_dir = node[2]
    conf_dir.mkdir(parents=True)
    (conf_dir / "05-cilium.conflist").write_text("theirs")
    (conf_dir / "00-folder.conflist").mkdir()
    done = install(*node)
    assert done.before_ours == ["05-cilium.conflist"]
    assert "the runtime takes 05-cilium.conflist and not 10-tortie.conflist" in done.warning
    assert (conf_dir / "05-cilium.conflist").read_text() == "theirs"


def test_nothing_to_warn_of(node: tuple[Path, Path, Path]) -> None:
    assert install(*node).warning == ""


def test_errors_name_the_file_and_the_way_out(node: tuple[Path, Path, Path], tmp_path: Path) -> None:
    with pytest.raises(NotInstalled, match=r"No such file or directory @ /nowhere/tortie; .*make cni"):
        install(Path("/nowhere/tortie"), *node[1:])
    (tmp_path / "opt").write_text("a file in the way")
    with pytest.raises(NotInstalled, match=rf"Not a directory @ {node[1]}/tortie; look at"):
        install(*node)


def test_a_plugin_that_runs_goes_on(node: tuple[Path, Path, Path]) -> None:
    binary, bin_dir, _ = node
    binary.write_bytes(Path("/bin/cat").read_bytes())
    install(*node)
    with subprocess.Popen([bin_dir / PLUGIN], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        binary.write_bytes(b"another")
        install(*node)
        assert running.communicate(b"still here")[0] == b"still here"
    assert (bin_dir / PLUGIN).read_bytes() == b"another"


def test_a_reader_sees_either_whole(node: tuple[Path, Path, Path]) -> None:
    binary, bin_dir, _ = node
    versions = [os.urandom(1 << 16), os.urandom(1 << 17)]
    binary.write_bytes(versions[0])
    install(*node)
    seen: set[bytes] = set()
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            seen.add((bin_dir / PLUGIN).read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    for turn in range(50):
        binary.write_bytes(versions[turn % 2])
        install(*node)
    stop.set()
    reader.join()
    assert seen <= set(versions)


def test_uninstalled_the_configuration_lets_pods_go_and_stands_last(node: tuple[Path, Path, Path]) -> None:
    binary, bin_dir, conf_dir = node
    install(binary, bin_dir, conf_dir)
    replace_conflist(conf_dir, ["/opt/cni/bin/tortie"])
    (path,) = conf_dir.iterdir()
    assert path.name == LAST_CONFLIST > "99-another.conflist"
    (plugin, *_) = json.loads(path.read_text())["plugins"]
    assert plugin == OURS | {"uninstalled": True, "remove": ["/opt/cni/bin/tortie"]}
    install(binary, bin_dir, conf_dir)
    assert [path.name for path in conf_dir.iterdir()] == [CONFLIST], "installed again"
