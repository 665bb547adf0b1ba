"""`echo.py TARGET [TIMES]`: ping every 10 ms, and print how many were sent, and the numbers of those that nobody answered.

It ends after so many, or when standard input does.

Busybox' ping won't do: its socket holds 7 KB, so on a busy machine it loses answers that arrived.
"""

import ipaddress
import os
import select
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
    line.setblocking(False)
    line.connect((target, 0))
    begin, sent, over = time.monotonic(), 0, False

    def listen(until: float) -> bool:
        """Take answers until a moment; whether standard input has ended."""
        ended = False
        while (left := until - time.monotonic()) > 0 and not ended and not (over and len(heard) == sent):
            ready, _, _ = select.select([line] if over else [line, sys.stdin], [], [], left)
            ended = sys.stdin in ready
            with suppress(OSError):
                data = line.recv(256)
                said, _, _, identifier, number = HEADER.unpack_from(data, 0 if six else 20)
                if (said, identifier) == (answer, own):
                    heard.add(number)
        return ended

    while not over and sent < times:
        plain = HEADER.pack(ask, 0, 0, own, sent)
        with suppress(OSError):  # there is no way now: it counts as lost
            line.send(plain if six else HEADER.pack(ask, 0, checksum(plain), own, sent))
        sent += 1
        over = listen(begin + sent * EVERY)
    over = True
    listen(time.monotonic() + PATIENCE)
    sys.stdout.write(" ".join(map(str, [sent, *sorted(set(range(sent)) - heard)])) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], int((sys.argv[2:] or ["60000"])[0]))
