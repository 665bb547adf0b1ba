"""The Tiltfile, executed with Tilt's functions recorded: Tilt itself isn't had everywhere. What it names is there."""

import re
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
import starlark as sl

from tests.cluster.deploy import ROOT
from tests.cluster.kubectl import Kubectl

FUNCTIONS = (
    "allow_k8s_contexts", "custom_build", "fall_back_on", "helm", "k8s_resource", "k8s_yaml", "local_resource", "port_forward",
    "run", "sync", "blob",
)  # fmt: skip
Call = tuple[tuple[Any, ...], dict[str, Any]]


def executed(context: str) -> dict[str, list[Call]]:
    """Return the calls that the Tiltfile makes in a cluster of that name, by function."""
    calls: dict[str, list[Call]] = {name: [] for name in FUNCTIONS}

    def recorder(name: str) -> Callable[..., Any]:
        def record(*arguments: Any, **named: Any) -> Any:
            calls[name].append((arguments, named))
            return [name, *arguments]

        return record

    # Starlark's structs aren't in the interpreter's core: os.getenv is Tilt's only one here.
    text = (ROOT / "Tiltfile").read_text().replace("os.getenv(", "os_getenv(")
    module = sl.Module()
    for name in FUNCTIONS:
        module.add_callable(name, recorder(name))
    module.add_callable("k8s_context", lambda: context)
    module.add_callable("os_getenv", lambda _name, default="": default)
    module["TRIGGER_MODE_MANUAL"] = "manual"
    sl.eval(module, sl.parse("Tiltfile", text, sl.Dialect.extended()), sl.Globals.standard())
    return calls


@pytest.fixture(scope="module")
def ours() -> dict[str, list[Call]]:
    return executed("tortie")


def test_the_image_is_built_from_what_is_there_and_comes_to_the_nodes(ours: dict[str, list[Call]]) -> None:
    ((arguments, named),) = ours["custom_build"]
    assert arguments[0] == "tortie"
    assert [part for part in named["deps"] if not (ROOT / part).exists()] == []
    for command in re.findall(r"(image/\S+|tests\.\w+)", arguments[1]):
        assert (ROOT / command.replace(".", "/")).exists(), command
    assert "load build/tilt.tar" in arguments[1]
    assert named["disable_push"]
    ((kind, other),) = executed("kind-kind")["custom_build"]
    assert "load" not in kind[1]
    assert not other["disable_push"], "Tilt brings it to kind's nodes"


def test_a_changed_file_is_copied_to_where_the_image_has_it(ours: dict[str, list[Call]]) -> None:
    (((source, target), _),) = ours["sync"]
    assert (ROOT / source / "cli" / "main.py").exists()
    assert target == "/opt/tortie/lib/tortie"
    assert "lib=build/image/opt/tortie/lib" in (ROOT / "image" / "build").read_text()
    (((fallback,), _),) = ours["fall_back_on"]
    ((_, named),) = ours["custom_build"]
    assert sorted([*fallback, "operator"]) == sorted(named["deps"])


def test_the_chart_takes_its_values_and_has_what_is_grouped(ours: dict[str, list[Call]], tmp_path: Any) -> None:
    (((chart,), named),) = ours["helm"]
    values = [part for value in named["set"] for part in ("--set", value)]
    values += ["--kube-version", named["kube_version"]]
    text = Kubectl(tmp_path / "nowhere").helm("template", named["name"], str(ROOT / chart), *values)
    for (workload,), named in ours["k8s_resource"]:
        assert re.search(rf"kind: (Deployment|DaemonSet)\nmetadata:\n  name: {workload}\n", text)
        for _, port, _ in named["port_forwards"]:
            assert f"containerPort: {port}" in text


def test_the_buttons_do_what_there_is(ours: dict[str, list[Call]]) -> None:
    (_, (command, _)), (_, (make, _)) = [(n, (a[1], n)) for a, n in ours["local_resource"]]
    assert (ROOT / command.split()[-1]).exists()
    assert subprocess.run(["make", "-n", make.split()[1]], cwd=ROOT, capture_output=True, check=False).returncode == 0
