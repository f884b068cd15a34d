"""The socket a server listens on: opened by the server itself, or by the supervisor that keeps it over restarts.

Needs neither torch nor a web framework.
"""

import socket

from app.errors import CannotListen


def listen(host: str, port: int) -> socket.socket:
    """Open the listening socket (port 0 picks a free one). Raises CannotListen when the address cannot be had."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        family, kind, _, _, address = found
        # Named as TCP, or asyncio leaves Nagle's algorithm on and every answer waits 40 ms for an acknowledgement.
        listener = socket.socket(family, kind, socket.IPPROTO_TCP)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(2048)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise CannotListen(host, port, error.strerror or str(error)) from error
    return listener
