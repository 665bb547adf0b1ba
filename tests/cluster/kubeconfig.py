"""kubeconfig files that hold everything they need: CA, certificate and key or token."""

import base64
import json
from pathlib import Path


def with_certificate(certificate: Path, key: Path) -> dict[str, str]:
    """Return the user entry of somebody who has a client certificate."""
    return {"client-certificate-data": encoded(certificate), "client-key-data": encoded(key)}


def with_token(token: str) -> dict[str, str]:
    """Return the user entry of somebody who has a bearer token."""
    return {"token": token}


def write(path: Path, server: str, authority: Path, user: dict[str, str]) -> Path:
    """Write a kubeconfig (JSON, which is YAML too) that its owner alone can read, and return its path."""
    cluster = {"server": server, "certificate-authority-data": encoded(authority)}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "tortie",
        "clusters": [{"name": "tortie", "cluster": cluster}],
        "users": [{"name": "user", "user": user}],
        "contexts": [{"name": "tortie", "context": {"cluster": "tortie", "user": "user"}}],
    }
    path.touch(mode=0o600)
    path.write_text(json.dumps(config))
    return path


def encoded(path: Path) -> str:
    """Return a file's content as kubeconfigs hold it."""
    return base64.b64encode(path.read_bytes()).decode()
