"""The plugin as a process, with the environment and the configuration of a runtime."""

import asyncio
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tests.cni.build import plugin


class Outcome(NamedTuple):
    """How a call ended: exit status, what it printed as JSON (None when nothing), and what it said on standard error."""

    status: int
    printed: Any
    said: str

    @property
    def error(self) -> tuple[int, str]:
        """The code and the whole text of the specification's error object."""
        assert self.status == 1, self
        assert set(self.printed) <= {"cniVersion", "code", "msg", "details"}, self
        return self.printed["code"], f"{self.printed['msg']}; {self.printed.get('details', '')}"


@dataclass
class Runtime:
    """A runtime of one container, with its socket and its queue in a folder of the test."""

    folder: Path
    environment: dict[str, str] = field(
        default_factory=lambda: {
            "CNI_CONTAINERID": "c1",
            "CNI_NETNS": "/run/netns/a",
            "CNI_IFNAME": "eth0",
            "CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0",
            "CNI_PATH": "/opt/cni/bin",
        }
    )

    @property
    def socket(self) -> Path:
        """Where the plugin looks for the agent."""
        return self.folder / "agent.sock"

    @property
    def deferred(self) -> Path:
        """Where the plugin queues DELs."""
        return self.folder / "lib" / "deferred"

    def config(self, version: str = "1.0.0", **fields: object) -> dict[str, object]:
        """Return a network configuration as the runtime passes it."""
        paths = {"socket": str(self.socket), "deferred": str(self.deferred)}
        return {"cniVersion": version, "name": "tortie", "type": "tortie", **paths, **fields}

    async def start(self, command: str | None, **environment: str | None) -> asyncio.subprocess.Process:
        """Start the plugin; what is None is not in its environment."""
        changed = {**self.environment, "CNI_COMMAND": command, **environment}
        pipe = asyncio.subprocess.PIPE
        given = {name: value for name, value in changed.items() if value is not None}
        return await asyncio.create_subprocess_exec(plugin(), env=given, stdin=pipe, stdout=pipe, stderr=pipe)

    async def run(self, command: str | None, stdin: object = None, **environment: str | None) -> Outcome:
        """Run the plugin to its end; `stdin` is bytes as they are, or a configuration, by default that of CNI 1.0.0."""
        return await end(await self.start(command, **environment), self.config() if stdin is None else stdin)


async def end(process: asyncio.subprocess.Process, stdin: object) -> Outcome:
    """Give a plugin its standard input and return how it ended."""
    text = stdin if isinstance(stdin, bytes) else json.dumps(stdin).encode()
    printed, said = await process.communicate(text)
    assert process.returncode is not None
    return Outcome(process.returncode, json.loads(printed) if printed else None, said.decode())
