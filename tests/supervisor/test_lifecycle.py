"""The table: properties that make the review of a changed row mechanical."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.lifecycle import (
    TRANSITIONS,
    WITH_TREE,
    Command,
    Event,
    IllegalEventError,
    State,
    Step,
    step,
)


def test_every_state_has_a_row() -> None:
    assert set(TRANSITIONS) == set(State)


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", [Event.STOP, Event.WANTED])
def test_stop_and_wanted_are_legal_everywhere(state: State, event: Event) -> None:
    assert event in TRANSITIONS[state]


@pytest.mark.parametrize("state", State)
def test_an_illegal_event_raises_and_names_itself(state: State) -> None:
    for event in set(Event) - set(TRANSITIONS[state]):
        with pytest.raises(IllegalEventError, match=f"{event.name} is illegal in {state.name}"):
            step(state, event)


def rows() -> list[tuple[State, Event, Step]]:
    return [(state, event, result) for state, row in TRANSITIONS.items() for event, result in row.items()]


def test_leaving_the_states_with_a_tree_reclaims_exactly_then() -> None:
    for state, event, result in rows():
        leaves = state in WITH_TREE and result.state not in WITH_TREE
        assert (Command.RECLAIM in result.commands) is leaves, (state, event)


def test_only_entering_ready_publishes_and_every_way_out_withdraws() -> None:
    for state, event, result in rows():
        enters = result.state is State.READY and state is not State.READY
        leaves = state is State.READY and result.state is not State.READY
        assert (Command.PUBLISH in result.commands) is enters, (state, event)
        assert (Command.WITHDRAW in result.commands) is leaves, (state, event)


def test_a_tree_is_only_spawned_from_stopped() -> None:
    assert {(s, e) for s, e, r in rows() if Command.SPAWN in r.commands} == {(State.STOPPED, Event.WANTED)}


def test_every_state_can_reach_stopped() -> None:
    for start in State:
        seen, todo = {start}, [start]
        while todo:
            for result in TRANSITIONS[todo.pop()].values():
                if result.state not in seen:
                    seen.add(result.state)
                    todo.append(result.state)
        assert State.STOPPED in seen, start


@given(st.lists(st.sampled_from(Event), max_size=40))
def test_spawns_equal_reclaims_after_any_history_that_ends_in_a_stop(history: list[Event]) -> None:
    state, trees, reclaimed = State.STOPPED, 0, 0
    for event in [*history, Event.STOP, Event.DRAINED, Event.EXITED, Event.STOP]:
        try:
            result = step(state, event)
        except IllegalEventError:
            continue
        state = result.state
        trees += Command.SPAWN in result.commands or event is Event.ADOPTED
        reclaimed += Command.RECLAIM in result.commands
    assert state is State.STOPPED
    assert trees == reclaimed
