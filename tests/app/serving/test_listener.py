import socket

import pytest

from app.errors import CannotListen
from app.serving.listener import listen


def test_a_taken_port_is_said_in_words() -> None:
    with listen("127.0.0.1", 0) as holder:
        port = holder.getsockname()[1]
        with pytest.raises(CannotListen, match=rf"Cannot listen on 127.0.0.1:{port}.*--port"):
            listen("127.0.0.1", port)


def test_the_socket_is_named_as_tcp_so_that_answers_are_not_held_back() -> None:
    with listen("127.0.0.1", 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP
