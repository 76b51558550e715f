"""Several questions on one wire: answers find who asked, and one silence or break is everyone's."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from hpc_batch.conversation import Conversation
from hpc_batch.errors import FarEndError, RemoteError, RemoteTimeout, Unreachable
from hpc_batch.far_end import Wire

LONG_S = 60


class Line:
    """hosts.Channel over one end of a socket pair; the test holds the other."""

    def __init__(self) -> None:
        self.near, self.far = socket.socketpair()
        self.sent = self.far.makefile("rb")

    def write(self, data: bytes) -> None:
        self.near.sendall(data)

    def read(self, n: int) -> bytes:
        try:
            return self.near.recv(n)
        except socket.timeout:
            raise RemoteTimeout("nothing came") from None

    def readinto(self, view: memoryview) -> int:
        return self.near.recv_into(view)

    def set_timeout(self, seconds: float) -> None:
        """The test decides for how long to wait."""

    def stderr_tail(self) -> bytes:
        return b""

    def finish(self) -> int | None:
        return 0

    def close(self) -> None:
        self.near.close()

    def say(self, value: dict[str, Any], data: bytes = b"") -> None:
        self.far.sendall(json.dumps(value).encode() + b"\n" + data)

    def heard(self) -> dict[str, Any]:
        value = json.loads(self.sent.readline())
        assert isinstance(value, dict)
        return value


@pytest.fixture
def line() -> Iterator[Line]:
    one = Line()
    yield one
    one.sent.close()
    one.far.close()
    one.near.close()


@pytest.fixture
def talk(line: Line) -> Conversation:
    return Conversation(Wire(line))


def test_answers_come_in_the_order_in_which_they_are_wanted(line: Line, talk: Conversation) -> None:
    first, second = talk.ask("census", {}), talk.ask("pilots", {"policy": {}})
    assert [line.heard()["verb"] for _ in range(2)] == ["census", "pilots"]
    line.say({"alive": 1})
    line.say({"n": first, "ok": True, "result": "a"})
    line.say({"n": second, "ok": True, "result": "b"})
    assert talk.result(second, "pilots") == "b"
    assert talk.result(first, "census") == "a"


def test_what_is_asked_before_an_answer_is_one_round_trip(line: Line, talk: Conversation) -> None:
    one, two = talk.ask("stage", {}), talk.ask("prepare", {})
    talk.send({"frame": {}})
    talk.send({"sync": 1})
    assert talk.flights == 1
    for answer in ({"n": one, "result": 1}, {"n": two, "result": 2}, {"synced": {"failed": []}}):
        line.say(answer)
    assert talk.answer("sync") == {"synced": {"failed": []}}
    talk.ask("sweep", {})
    assert talk.flights == 1
    talk.result(two, "prepare")
    talk.ask("publish", {})
    talk.ask("pilots", {})
    assert talk.flights == 2


def test_frames_between_answers_wait_for_who_wants_them(line: Line, talk: Conversation) -> None:
    number = talk.ask("purge", {})
    line.say({"item": 0, "offset": 0, "bytes": 5}, b"a\nb\nc")
    line.say({"item": 0, "end": True, "size": 5})
    line.say({"n": number, "ok": True, "result": {}})
    assert talk.result(number, "purge") == {}
    header = talk.answer("get")
    assert bytes(talk.exactly(header["bytes"])) == b"a\nb\nc"
    assert talk.answer("get")["end"] is True


def test_one_thread_may_wait_for_a_result_while_another_asks(
    line: Line, talk: Conversation
) -> None:
    waiting, found = talk.ask("wait", {}), []
    thread = threading.Thread(target=lambda: found.append(talk.result(waiting, "wait")))
    thread.start()
    for number in range(100):
        asked = talk.ask("census", {})
        line.say({"n": asked, "ok": True, "result": number})
        assert talk.result(asked, "census") == number
    line.say({"n": waiting, "ok": True, "result": "changed"})
    thread.join(LONG_S)
    assert found == ["changed"]


def test_an_error_is_the_one_questions_own(line: Line, talk: Conversation) -> None:
    bad, good = talk.ask("stage", {}), talk.ask("census", {})
    line.say({"n": bad, "ok": False, "error": {"kind": "ENOSPC", "message": "full"}})
    line.say({"n": good, "ok": True, "result": 1})
    with pytest.raises(FarEndError, match="stage: full") as caught:
        talk.result(bad, "stage")
    assert caught.value.kind == "ENOSPC"
    assert talk.result(good, "census") == 1


def test_the_end_of_the_wire_is_told_to_everybody(line: Line, talk: Conversation) -> None:
    waiting, told = talk.ask("wait", {}), []

    def wait() -> None:
        try:
            talk.result(waiting, "wait")
        except RemoteError as error:
            told.append(error)

    threads = [threading.Thread(target=wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    line.far.shutdown(socket.SHUT_WR)
    for thread in threads:
        thread.join(LONG_S)
    assert len(told) == 3
    with pytest.raises(Unreachable):
        talk.ask("census", {})


def test_a_silence_breaks_a_question_and_not_bulk(line: Line, talk: Conversation) -> None:
    number = talk.ask("census", {})
    line.near.settimeout(0.01)
    with pytest.raises(RemoteTimeout):
        talk.answer("frame")
    line.say({"ack": 1})
    assert talk.answer("frame") == {"ack": 1}
    with pytest.raises(RemoteTimeout):
        talk.result(number, "census")
    with pytest.raises(RemoteTimeout):
        talk.ask("census", {})


def test_what_nobody_asked_for_ends_the_conversation(line: Line, talk: Conversation) -> None:
    number = talk.ask("census", {})
    error = {"kind": "usage", "message": "no JSON object"}
    line.say({"n": None, "ok": False, "error": error})
    with pytest.raises(FarEndError, match="no JSON object"):
        talk.result(number, "census")
