"""The real kubectl and helm, with a kubeconfig."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.cluster.assets import find
from tests.cluster.reading import Reader, Refused

__all__ = ["Kubectl", "Refused"]

TIMEOUT_SECONDS = 120.0

Manifest = str | Mapping[str, Any] | Sequence[Mapping[str, Any]]


class Kubectl:
    """kubectl and helm as the person whom `kubeconfig` names; what they cache lies beside it."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig
        self._reader: Reader | None = None  # the kubeconfig may be written later

    def run(self, *arguments: str, stdin: str | None = None) -> str:
        """Return what `kubectl ARGUMENTS` prints; raises Refused."""
        return self._call("kubectl", *arguments, stdin=stdin)

    def helm(self, *arguments: str) -> str:
        """Return what `helm ARGUMENTS` prints; raises Refused."""
        return self._call("helm", *arguments)

    def apply(self, *manifests: Manifest) -> str:
        """Apply YAML texts, objects and lists of objects; raises Refused with the server's sentence."""
        return self.run("apply", "-f", "-", stdin="\n---\n".join(map(_text, manifests)))

    def get(self, *arguments: str) -> Any:
        """Return the JSON of `kubectl get ARGUMENTS`; raises Refused."""
        self._reader = self._reader or Reader(self.kubeconfig)
        return self._reader.get(*arguments)

    def _call(self, command: str, *arguments: str, stdin: str | None = None) -> str:
        done = subprocess.run(
            [str(find(command)), *arguments], input=stdin, env=self._environment(), capture_output=True, text=True,
            check=False, timeout=TIMEOUT_SECONDS,
        )  # fmt: skip
        if done.returncode:
            raise Refused(done.stderr.strip() or f"{command} {' '.join(arguments)} ended with status {done.returncode}")
        return done.stdout

    def _environment(self) -> dict[str, str]:
        """Keep what they cache with the cluster: another one may get its port later, and nothing may be left behind."""
        beside = self.kubeconfig.parent / "kubectl"
        ours = {"KUBECONFIG": self.kubeconfig, "KUBECACHEDIR": beside}
        ours |= {f"HELM_{use}_HOME": beside / "helm" / use.lower() for use in ("CACHE", "CONFIG", "DATA")}
        return {**os.environ, **{name: str(path) for name, path in ours.items()}}


def _text(manifest: Manifest) -> str:
    if isinstance(manifest, str):
        return manifest
    if isinstance(manifest, Mapping):
        return json.dumps(manifest)
    return "\n---\n".join(json.dumps(one) for one in manifest)
