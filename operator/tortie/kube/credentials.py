"""Where the API server is, and who we are to it.

Belongs here: kubeconfig files, service-account tokens and exec plugins, kept fresh, all by `kubernetes.aio.config`.
Does not: requests. Importing that library costs 21 MB of memory, as its parent package imports every part of it; no
other module here imports it.
"""

import asyncio
import logging
import os
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config.config_exception import ConfigException
from kubernetes.aio.config.incluster_config import SERVICE_TOKEN_FILENAME, load_incluster_config
from kubernetes.aio.config.kube_config import load_kube_config

from tortie.kube.errors import NoCredentials

_log = logging.getLogger(__name__)

# Tokens in pods live an hour and are replaced when four fifths have passed; a minute is what client-go waits, too.
REREAD_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What stays the same while a client lives."""

    server: str
    tls: ssl.SSLContext | None
    server_name: str | None
    proxy: str | None


class Credentials:
    """The header that says who we are, read again as the files or the plugin behind it give new ones."""

    def __init__(self, configuration: Any, loader: Any, clock: Callable[[], float] = time.monotonic) -> None:
        self.configuration = configuration
        self._loader = loader  # of a kubeconfig; None in a pod, where the configuration has its own hook
        self._clock = clock
        self._read_at = clock()
        self._reading = asyncio.Lock()
        self.endpoint = Endpoint(
            server=configuration.host.rstrip("/"),
            tls=_tls(configuration) if configuration.host.startswith("https") else None,
            server_name=configuration.tls_server_name,
            proxy=configuration.proxy,
        )

    @classmethod
    async def load(cls, kubeconfig: str | None = None, context: str | None = None) -> Self:
        """Read them: the given kubeconfig, else $KUBECONFIG, else the pod's own, else ~/.kube/config."""
        configuration = Configuration()
        path = kubeconfig or os.environ.get("KUBECONFIG") or _default_path()
        try:
            if path is None:
                load_incluster_config(client_configuration=configuration)
                return cls(configuration, None)
            if not _exists(path):
                raise NoCredentials("there is no such kubeconfig", path)
            loader = await load_kube_config(path, context, configuration, persist_config=False)
            return cls(configuration, loader)
        except (ConfigException, OSError, ValueError, TypeError) as error:
            raise NoCredentials(str(error), path or "the pod's service account") from error

    async def authorization(self) -> str | None:
        """Return the `Authorization` header, or None where a client certificate says who we are."""
        if self._loader and self._clock() - self._read_at >= REREAD_SECONDS and not self._reading.locked():
            await self._reread()
        try:
            header = await self.configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
        except (ConfigException, OSError) as error:  # the token's file is away for a moment: the last one may still do
            _log.warning("the service account's token can't be read again (%s); going on with the last one", error)
            header = self.configuration.api_key.get("BearerToken")
        return header.strip() if header else None

    def refused(self) -> None:
        """Read everything again before the next request: the server has just said 401."""
        self._read_at = self._clock() - REREAD_SECONDS
        if self._loader:
            vars(self._loader).pop("exec_plugin_expiry", None)  # a plugin's token may be revoked before it expires

    async def _reread(self) -> None:
        async with self._reading:
            self._read_at = self._clock()
            try:
                await self._loader.load_and_set(self.configuration)
            except Exception as error:  # plugins and files fail in any way; what we have may still do
                _log.warning("the kubeconfig's credentials can't be read again (%s); going on with the last ones", error)


def _default_path() -> str | None:
    if os.environ.get("KUBERNETES_SERVICE_HOST") and Path(SERVICE_TOKEN_FILENAME).is_file():
        return None
    path = Path.home() / ".kube" / "config"
    return str(path) if path.is_file() else None


def _exists(path: str) -> bool:
    return any(Path(part).expanduser().is_file() for part in path.split(os.pathsep) if part)


def _tls(configuration: Any) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
    if configuration.cert_file:
        context.load_cert_chain(configuration.cert_file, configuration.key_file)
    if not configuration.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
