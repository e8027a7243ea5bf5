"""How a burst of new clients is taken in."""

from __future__ import annotations

import asyncio
import socket

import uvloop

from router.front import ACCEPTORS, Front
from tests.router.test_flow_between_answers import some_ports

CLIENTS = 40


def test_a_burst_of_clients_is_accepted_several_a_round_and_the_socket_is_given_back() -> None:
    async def scenario(listener: socket.socket) -> int:
        front, loop = Front(some_ports(), timer=False), asyncio.get_running_loop()
        await front.start(sockets=[listener])
        address = listener.getsockname()
        clients = [socket.create_connection(address) for _ in range(CLIENTS)]
        rounds, all_in = 0, loop.create_future()

        def look() -> None:
            nonlocal rounds
            rounds += 1
            if front.counters.connections == CLIENTS:
                all_in.set_result(None)
            else:
                loop.call_soon(look)

        loop.call_soon(look)
        async with asyncio.timeout(10):
            await all_in
        for client in clients:
            client.close()
        await front.close(0)
        return rounds

    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    address = listener.getsockname()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        rounds = runner.run(scenario(listener))
    assert rounds <= CLIENTS / ACCEPTORS + 5
    with socket.socket() as after:
        after.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        after.bind(address)  # nobody listens there any more
