"""`kubectl get -o json` without a process: tests ask until something holds, and each kubectl takes 0.12 s of CPU."""

import argparse
import base64
import json
import ssl
import tempfile
import time
import urllib.request
from http.client import TOO_MANY_REQUESTS, HTTPException
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import HTTPError
from urllib.parse import urlencode

from tests.cluster.terminal import Foreseen

_DISCOVERY = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"

_SECONDS = 60.0
_PAUSE = 0.2  # seconds


class Refused(Foreseen):
    """The command failed; the message is what the server, or the command itself, said."""


class Kind(NamedTuple):
    """A kind that the API server serves; `path` is where its objects are, with room for their namespace."""

    api_version: str
    name: str
    path: str
    namespaced: bool


class Reader:
    """Reads as the person whom a kubeconfig of ours (`tests.cluster.kubeconfig`) names."""

    def __init__(self, kubeconfig: Path) -> None:
        config = json.loads(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        self._server: str = cluster["server"]
        self._tls = ssl.create_default_context(cadata=_decoded(cluster["certificate-authority-data"]))
        self._headers = {"Authorization": f"Bearer {user['token']}"} if "token" in user else {}
        if "client-certificate-data" in user:
            with tempfile.NamedTemporaryFile("w") as file:  # OpenSSL reads them from files alone
                file.write(_decoded(user["client-certificate-data"]) + _decoded(user["client-key-data"]))
                file.flush()
                self._tls.load_cert_chain(file.name)
        self._kinds = dict[str, Kind]()

    def get(self, *arguments: str) -> Any:
        """Return what `kubectl get ARGUMENTS -o json` prints; raises Refused."""
        asked = _ARGUMENTS.parse_intermixed_args(arguments)
        kinds, *names = asked.words
        if "/" in kinds:
            kinds, _, name = kinds.partition("/")
            names = [name]
        selectors = {"labelSelector": asked.selector, "fieldSelector": asked.field_selector}
        query = urlencode({key: value for key, value in selectors.items() if value})
        items = list[Any]()
        for word in kinds.split(","):
            kind = self._kind(word)
            namespace = "" if asked.all_namespaces or not kind.namespaced else f"namespaces/{asked.namespace}/"
            path = kind.path.format(namespace)
            if names:
                items += [self._read(f"{path}/{name}", asked.request_timeout) for name in names]
            else:
                of_kind = {"apiVersion": kind.api_version, "kind": kind.name}
                items += [of_kind | item for item in self._read(f"{path}?{query}", asked.request_timeout)["items"]]
        return (
            items[0]
            if len(names) == 1
            else {"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": items}
        )

    def _kind(self, word: str) -> Kind:
        if word not in self._kinds:
            self._discover()
        if word not in self._kinds:
            raise Refused(f"the server doesn't have a resource type {word!r}")
        return self._kinds[word]

    def _discover(self) -> None:
        """Learn what is served; of two kinds with one name the first counts, as for kubectl."""
        served = dict[str, Kind]()
        for root in ("/api", "/apis"):
            for group in self._read(root, Accept=_DISCOVERY)["items"]:
                name = group["metadata"].get("name", "")
                version = group["versions"][0]
                api_version = f"{name}/{version['version']}" if name else version["version"]
                for one in version["resources"]:
                    kind = Kind(api_version, one["responseKind"]["kind"], f"{root}/{api_version}/{{}}{one['resource']}",
                                one["scope"] == "Namespaced")  # fmt: skip
                    words = (
                        one["resource"],
                        one.get("singularResource"),
                        *one.get("shortNames", ()),
                        f"{one['resource']}.{name}",
                    )
                    for word in filter(None, words):
                        served.setdefault(word, kind)

        self._kinds = served

    def _read(self, path: str, seconds: float = _SECONDS, **headers: str) -> Any:
        request = urllib.request.Request(self._server + path, headers=self._headers | headers)
        deadline = time.monotonic() + seconds
        while True:
            try:
                with urllib.request.urlopen(request, context=self._tls, timeout=seconds) as response:
                    return json.loads(response.read(), object_hook=_shown)
            except HTTPError as error:
                with error:
                    said = _message(error.read())
                if error.code != TOO_MANY_REQUESTS or time.monotonic() > deadline:  # also said while a kind is made ready
                    raise Refused(f"GET {path}: {said}") from error
            except (OSError, HTTPException) as error:  # the latter: the server ended in the middle of its answer
                raise Refused(f"GET {path}: {error}") from error
            time.sleep(_PAUSE)


def _shown(value: dict[str, Any]) -> dict[str, Any]:
    """Leave out what kubectl does."""
    value.pop("managedFields", None)
    return value


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("kubectl get", add_help=False)
    parser.add_argument("words", nargs="+")
    parser.add_argument("-n", "--namespace", default="default")
    parser.add_argument("-A", "--all-namespaces", action="store_true")
    parser.add_argument("-l", "--selector")
    parser.add_argument("--field-selector")
    parser.add_argument("--request-timeout", default=_SECONDS, type=lambda text: float(text.removesuffix("s")))
    return parser


_ARGUMENTS = _arguments()


def _message(body: bytes) -> str:
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError):
        return body.decode(errors="replace")


def _decoded(data: str) -> str:
    return base64.b64decode(data).decode()
