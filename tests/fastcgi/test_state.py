"""The request state table: whole lives, and every illegal event."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.fastcgi.records import RecordType
from imagefarm.fastcgi.state import (
    TRANSITIONS,
    Event,
    IllegalEvent,
    RequestState,
    Side,
    State,
    UnexpectedType,
    event_of,
)

WEB, APP = Side.WEB_SERVER, Side.APPLICATION


class LifeTests(SynchronousTestCase):
    def walk(self, *steps: tuple[Side, Event]) -> RequestState:
        state = RequestState()
        for side, event in steps:
            state.advance(side, event)
        return state

    def test_a_whole_request(self) -> None:
        state = self.walk(
            (WEB, Event.BEGIN), (WEB, Event.PARAMS), (WEB, Event.PARAMS), (WEB, Event.PARAMS_END),
            (WEB, Event.STDIN), (WEB, Event.STDIN_END), (APP, Event.STDOUT), (APP, Event.STDERR),
            (APP, Event.STDOUT_END), (APP, Event.STDERR_END), (APP, Event.END),
        )  # fmt: skip
        self.assertTrue(state.reusable)
        self.assertEqual(
            repr(state),
            f"RequestState(web_server={State.SENT!r}, application={State.ENDED!r})",
        )

    def test_an_answer_before_the_request_is_whole(self) -> None:
        state = self.walk(
            (WEB, Event.BEGIN), (WEB, Event.PARAMS_END), (APP, Event.STDOUT), (APP, Event.END)
        )
        self.assertTrue(state.ended)
        self.assertFalse(state.reusable)

    def test_an_abort(self) -> None:
        state = self.walk(
            (WEB, Event.BEGIN), (WEB, Event.PARAMS_END), (WEB, Event.STDIN_END), (WEB, Event.ABORT)
        )
        self.assertIs(state.web_server, State.ABORTED)
        state.advance(APP, Event.END)
        self.assertFalse(state.reusable)

    def test_begin_comes_from_the_web_server(self) -> None:
        with self.assertRaises(IllegalEvent):
            self.walk((APP, Event.BEGIN))

    def test_begin_twice(self) -> None:
        with self.assertRaisesRegex(IllegalEvent, "illegal BEGIN from the web server"):
            self.walk((WEB, Event.BEGIN), (WEB, Event.BEGIN))

    @settings(deadline=None)
    @given(st.lists(st.tuples(st.sampled_from(Side), st.sampled_from(Event)), max_size=12))
    def test_only_what_the_table_lists_happens(self, steps: list[tuple[Side, Event]]) -> None:
        state = RequestState()
        for side, event in steps:
            before = (state.web_server, state.application)
            current = before[side is APP]
            listed = TRANSITIONS[side][current].get(event)
            try:
                state.advance(side, event)
            except IllegalEvent:
                self.assertEqual((state.web_server, state.application), before)
                self.assertTrue(listed is None or (side, event) == (APP, Event.BEGIN))
            else:
                self.assertIs((state.web_server, state.application)[side is APP], listed)

    def test_nothing_leaves_a_last_state(self) -> None:
        for event in Event:
            for side, last in ((WEB, State.ABORTED), (APP, State.ENDED)):
                state = RequestState(last, last)
                with self.assertRaises(IllegalEvent):
                    state.advance(side, event)


class EventTests(SynchronousTestCase):
    def test_streams_end_with_an_empty_record(self) -> None:
        self.assertIs(event_of(RecordType.STDIN, b"x"), Event.STDIN)
        self.assertIs(event_of(RecordType.STDIN, b""), Event.STDIN_END)
        self.assertIs(event_of(RecordType.STDOUT, b""), Event.STDOUT_END)

    def test_single_records(self) -> None:
        self.assertIs(event_of(RecordType.END_REQUEST, bytes(8)), Event.END)
        self.assertIs(event_of(RecordType.ABORT_REQUEST, b""), Event.ABORT)

    def test_what_no_request_has(self) -> None:
        for kind in (0, RecordType.DATA, RecordType.GET_VALUES, RecordType.UNKNOWN_TYPE, 99):
            with self.assertRaises(UnexpectedType):
                event_of(kind, b"")
