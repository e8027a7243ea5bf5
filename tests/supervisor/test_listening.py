"""Reading the kernel's socket tables, on recorded text."""

from __future__ import annotations

from supervisor.listening import Listener, parse_tcp

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
TCP = HEAD + (
    "   0: 0100007F:A2C3 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 77001 1 0\n"
    "   1: 0100007F:B000 0100007F:A2C3 01 00000000:00000000 00:00000000 00000000  1000        0 77002 1 0\n"
    "   2: 0100007F:A2C3 0100007F:B000 01 00000000:00000000 00:00000000 00000000  1000        0 77003 1 0\n"
    "   3: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000    33        0 77004 1 0\n"
    "   4: 0A00020F:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000    33        0 77005 1 0\n"
)
TCP6 = HEAD + (
    "   0: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A "
    "00000000:00000000 00:00000000 00000000     0        0 88001 1 0\n"
    "   1: 00000000000000000000000001000000:1F92 00000000000000000000000000000000:0000 0A "
    "00000000:00000000 00:00000000 00000000     0        0 88002 1 0\n"
)


def test_only_listening_sockets_of_that_port_count() -> None:
    assert parse_tcp(TCP, 0xA2C3) == [Listener(77001, 1000, 2)]
    assert parse_tcp(TCP, 0xB000) == []


def test_a_wildcard_listener_gets_loopback_connections_but_ranks_lower() -> None:
    assert parse_tcp(TCP, 0x1F90) == [Listener(77004, 33, 1)]
    assert parse_tcp(TCP6, 0x1F90) == [Listener(88001, 0, 1)]


def test_listeners_elsewhere_do_not_count() -> None:
    assert parse_tcp(TCP, 0x1F91) == []  # 10.0.2.15
    assert parse_tcp(TCP6, 0x1F92) == []  # ::1 only
