"""Free ports of 127.0.0.1 that stay ours."""

import socket

_HOST = "127.0.0.1"


class HeldPort:
    """A free port that nobody else is given until `release()`.

    The socket that holds it never listens. A server that sets SO_REUSEPORT, as this does, and runs as the same user may
    bind the port beside it, die and bind it again; the kernel gives it to no one else.
    """

    def __init__(self) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._socket.bind((_HOST, 0))
        self.number: int = self._socket.getsockname()[1]

    def release(self) -> None:
        """Let anybody have it."""
        self._socket.close()
