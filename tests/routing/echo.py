"""`echo.py TARGET TIMES`: ping every 10 ms, and print how many were sent, and the numbers of those that nobody answered.

Busybox' ping won't do: its socket holds 7 KB, so on a busy machine it loses answers that arrived.
"""

import ipaddress
import os
import socket
import struct
import sys
import time
from contextlib import suppress

EVERY, PATIENCE = 0.01, 3.0  # seconds
HEADER = struct.Struct("!BBHHH")  # type, code, checksum, identifier, number (RFC 792, RFC 4443)


def checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def main(target: str, times: int) -> None:
    """Send and listen."""
    six = ipaddress.ip_address(target).version == 6
    ask, answer = (128, 129) if six else (8, 0)
    kind = (socket.AF_INET6, socket.getprotobyname("ipv6-icmp")) if six else (socket.AF_INET, socket.IPPROTO_ICMP)
    line, own, heard = socket.socket(kind[0], socket.SOCK_RAW, kind[1]), os.getpid() & 0xFFFF, set[int]()
    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    line.connect((target, 0))
    begin = time.monotonic()

    def listen(until: float) -> None:
        while (left := until - time.monotonic()) > 0 and len(heard) < times:
            line.settimeout(left)
            try:
                data = line.recv(256)
            except (TimeoutError, OSError):
                continue
            said, _, _, identifier, number = HEADER.unpack_from(data, 0 if six else 20)
            if (said, identifier) == (answer, own):
                heard.add(number)

    for number in range(times):
        plain = HEADER.pack(ask, 0, 0, own, number)
        with suppress(OSError):  # there is no way now: it counts as lost
            line.send(plain if six else HEADER.pack(ask, 0, checksum(plain), own, number))
        listen(begin + (number + 1) * EVERY)
    listen(time.monotonic() + PATIENCE)
    sys.stdout.write(" ".join(map(str, [times, *sorted(set(range(times)) - heard)])) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
