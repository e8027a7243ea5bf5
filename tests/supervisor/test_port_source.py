"""Free ports."""

from __future__ import annotations

import socket

import pytest

from supervisor.port_source import LOWEST, LoopbackPorts, ephemeral_range, parse_range


def test_ports_are_different_and_below_what_outgoing_connections_take() -> None:
    ports = LoopbackPorts((32768, 60999), seed=1)
    taken = [ports.take() for _ in range(100)]
    assert len(set(taken)) == 100
    assert all(LOWEST <= port < 32768 for port in taken)


def test_a_port_in_use_is_not_given_out() -> None:
    first = LoopbackPorts((32768, 60999), seed=7).take()
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", first))
        squatter.listen()
        assert LoopbackPorts((32768, 60999), seed=7).take() != first


def test_a_port_given_back_rests_a_while() -> None:
    ports = LoopbackPorts((LOWEST + 100, 60999), seed=2)
    port = ports.take()
    ports.give_back(port)
    assert port not in {ports.take() for _ in range(30)}


def test_without_room_below_the_range_the_kernel_chooses() -> None:
    ports = LoopbackPorts((1024, 65535))
    assert ports.take() != ports.take()


def test_the_kernels_range_is_read() -> None:
    assert parse_range("32768\t60999\n") == (32768, 60999)
    with pytest.raises(ValueError, match="unpack"):
        parse_range("32768")
    low, high = ephemeral_range()
    assert 1024 <= low < high <= 65535
