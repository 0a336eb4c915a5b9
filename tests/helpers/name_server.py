"""`name_server.py ADDRESS,... NAME=ADDRESS ...`: a DNS server for the names of containers, and for no others."""

from __future__ import annotations

import socket
import struct
import sys
import threading

_ADDRESS_RECORD = 1
_NO_SUCH_NAME = 3


def reply(request: bytes, names: dict[str, str]) -> bytes:
    """The answer to one question (RFC 1035): the address of a known name, nothing for its other records."""
    labels, at = [], 12
    while length := request[at]:
        labels.append(request[at + 1 : at + 1 + length].decode().lower())
        at += 1 + length
    question = request[12 : at + 5]
    (kind,) = struct.unpack(">H", request[at + 1 : at + 3])
    address = names.get(".".join(labels))
    answer = b""
    if address and kind == _ADDRESS_RECORD:
        answer = struct.pack(">HHHIH", 0xC00C, kind, 1, 5, 4) + socket.inet_aton(address)
    flags = 0x8180 | (0 if address else _NO_SUCH_NAME)
    return request[:2] + struct.pack(">HHHHH", flags, 1, bool(answer), 0, 0) + question + answer


def serve(address: str, names: dict[str, str]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((address, 53))
        while True:
            request, client = server.recvfrom(1500)
            server.sendto(reply(request, names), client)


if __name__ == "__main__":
    known = dict(pair.split("=") for pair in sys.argv[2:])
    for each in sys.argv[1].split(","):
        threading.Thread(target=serve, args=(each, known)).start()
