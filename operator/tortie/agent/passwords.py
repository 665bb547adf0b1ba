"""The passwords of BGP sessions, from Secrets beside the agents: those that objects name and that a Role lets agents read.

Each is watched by its name alone, so that all nodes hear of a change at once: who may list all Secrets may read them all.
"""

import base64
import binascii
from collections.abc import Callable, Iterable
from contextlib import suppress

from tortie.api import lean
from tortie.kube.client import Client
from tortie.kube.resource import Resource
from tortie.kube.stream import Stream
from tortie.kube.streams import Streams
from tortie.routing.written import Secrets

SECRETS = Resource("", "v1", "secrets", namespaced=True)


class Passwords:
    """Keeps them current. `changed` is called when one is another than before, or known for the first time."""

    def __init__(self, client: Client, namespace: str) -> None:
        self._client, self._namespace = client, namespace
        self.changed: Callable[[], None] = lambda: None
        self._streams = Streams(self._stream)
        self.run = self._streams.run

    @property
    def known(self) -> Secrets:
        """Their values, by the Secret's name and the key; those that are no text are left out."""
        found = dict[tuple[str, str], str]()
        for name, stream in self._streams.named.items():
            for secret in stream.store.values():
                for key, value in secret.data.items():
                    with suppress(UnicodeDecodeError, binascii.Error):
                        found[name, key] = base64.b64decode(value).decode()
        return found

    def want(self, names: Iterable[str]) -> bool:
        """Have these Secrets watched; whether it is known of each whether it is there, and may be read."""
        self._streams.want(names if self._namespace else ())
        return all(stream.synced.is_set() or stream.is_refused for stream in self._streams.named.values())

    def _stream(self, name: str) -> Stream[lean.Secret]:
        path = SECRETS.path(namespace=self._namespace)
        return Stream(self._client, path, lean.Secret, self._on_change, field_selector=f"metadata.name={name}")

    def _on_change(self, _old: lean.Secret | None, _new: lean.Secret | None) -> None:
        self.changed()
