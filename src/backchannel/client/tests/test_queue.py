"""The queue: what could not be sent is sent later, in order, once."""

import subprocess
import sys
import threading

import httpx
import msgspec
import pytest

from backchannel.client import Client, ClientError, Queue, RefusedError, UnavailableError
from backchannel.client.tests.conftest import Drops, Live
from backchannel.serve.records import DecideRequest

CONTEXT = {"size": 3, "city": "x"}


def test_feedback_waits_for_the_service_through_a_restart_of_both(live: Live, tmp_path) -> None:
    path = tmp_path / "q.db"
    with Client(live.url) as client:
        decided = [client.decide("shop", CONTEXT).id for _ in range(5)]
    live.stop()
    with Client(live.url, queue=path) as client:
        queued = [client.feedback("shop", id, 1.0) for id in decided]
        assert {each.status for each in queued} == {"queued"}
        with Client(live.url, queue=path, timeout=0.2) as other, pytest.raises(UnavailableError):
            other.flush()
        assert len(client.queue) == 5  # type: ignore[arg-type]
    live.start()
    with Client(live.url, queue=path) as client:
        last = client.feedback("shop", decided[0], 0.5)
        assert last.status == "kept"
        assert len(client.queue) == 0  # type: ignore[arg-type]
        assert client.flush() == 0
    assert live.ids("shop", "feedback") == [each.id for each in [*queued, last]]


def test_what_waits_survives_a_process_that_is_killed(live: Live, tmp_path) -> None:
    path = tmp_path / "q.db"
    code = (
        "import os, signal, sys\n"
        "from backchannel.client import Client\n"
        f"client = Client('http://127.0.0.1:9', queue={str(path)!r})\n"
        "for i in range(3): assert client.feedback('shop', 'd1', 1.0, id=f'f{i}').status == 'queued'\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], stderr=subprocess.DEVNULL).returncode == -9
    with Client(live.url, queue=path) as client:
        assert client.flush() == 3
    assert live.ids("shop", "feedback") == ["f0", "f1", "f2"]


def test_an_answer_that_is_lost_leaves_no_second_entry(live: Live, tmp_path) -> None:
    with Client(live.url, queue=tmp_path / "q.db", transport=Drops(1, 2)) as client:
        first = client.feedback("shop", "d1", 1.0)
        assert first.status == "queued"  # the service has it, but who knows
        assert client.flush() == 1
        assert len(client.queue) == 0  # type: ignore[arg-type]
    assert live.ids("shop", "feedback") == [first.id]


def test_a_watched_decision_waits_with_what_follows_it(live: Live, tmp_path) -> None:
    live.stop()
    with Client(live.url, queue=tmp_path / "q.db") as client:
        for i in range(4):
            decided = client.decide("watched", CONTEXT, id=f"d{i}", action="b", propensity=0.25, defer=True)
            assert (decided.id, decided.action, decided.propensity, decided.policy) == (f"d{i}", "b", 0.25, "")
            assert client.shown("watched", f"d{i}")[0].status == "queued"
            assert client.feedback("watched", f"d{i}", 1.0).status == "queued"
        live.start()
        assert client.flush() == 12
        assert client.decide("watched", CONTEXT, id="d0", action="b", propensity=0.25, defer=True).id == "d0"
        with pytest.raises(ValueError, match="either all requests say an action, or none does"):
            client.decide_many("watched", [DecideRequest(action="a"), DecideRequest()])
    assert live.service is not None
    kinds = [kept.entry.kind for kept in live.service.ledger.read("watched", 0, 100)]
    assert kinds == ["decision", "shown", "feedback"] * 4


def test_what_is_refused_is_told_set_aside_and_blocks_nothing(live: Live, tmp_path) -> None:
    path = tmp_path / "q.db"
    with Client("http://127.0.0.1:9", queue=path) as client:
        for i in range(6):
            client.feedback("shop", "d1", float(i), id=f"f{i}")
        for i in range(2):
            client.decide("shop", CONTEXT, id=f"w{i}", action="b")  # an application that decides itself
        client.feedback("shop", "d1", 6.0, id="f6")
    with Client(live.url, queue=path) as client:
        assert client.flush() == 7
        assert client.queue is not None
        assert len(client.queue) == 0
        assert [each.route for each in client.queue.refused()] == ["decide"] * 2
        assert "mode watch" in client.queue.refused()[0].problem
        with pytest.raises(RefusedError, match="mode watch"):
            client.decide("shop", CONTEXT, action="b")
    assert live.ids("shop", "feedback") == [f"f{i}" for i in range(7)]


def test_one_that_is_refused_in_a_call_of_many_takes_no_other_with_it(tmp_path) -> None:
    taken: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        ids = [each["id"] for each in msgspec.json.decode(request.content)]
        if "f37" in ids:
            return httpx.Response(400, json={"error": "f37 is wrong"})
        taken.extend(ids)
        return httpx.Response(200, json=[{"id": id, "status": "kept"} for id in ids])

    path = tmp_path / "q.db"
    with Client("http://127.0.0.1:9", queue=path) as client:
        for i in range(90):
            client.feedback("shop", "d1", 1.0, id=f"f{i}")
    with Client("http://service", queue=path, transport=httpx.MockTransport(answer)) as client:
        assert client.flush() == 89
        assert client.queue is not None
        assert [each.problem for each in client.queue.refused()] == ["f37 is wrong"]
    assert taken == [f"f{i}" for i in range(90) if i != 37]


def test_a_token_or_application_that_is_refused_loses_nothing(guarded, tmp_path) -> None:
    live, token = guarded
    path = tmp_path / "q.db"
    with Client(live.url, "wrong", queue=path) as client:
        assert client.feedback("shop", "d1", 1.0, id="f0").status == "queued"
        with pytest.raises(RefusedError, match="not known"):
            client.flush()
    with Client(live.url, token, queue=path) as client:
        assert client.feedback("elsewhere", "d1", 1.0, id="f1").status == "queued"
        with pytest.raises(RefusedError, match="no application 'elsewhere'"):
            client.flush()
        assert client.queue is not None
        assert (len(client.queue), client.queue.apps()) == (1, ["elsewhere"])
    assert live.ids("shop", "feedback") == ["f0"]


def test_a_service_that_is_away_is_not_asked_at_every_call(tmp_path) -> None:
    asked: list[int] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(1)
        raise httpx.ConnectError("nobody there")

    with Client("http://service", queue=tmp_path / "q.db", transport=httpx.MockTransport(answer)) as client:
        for _ in range(10):
            client._core._failures = 20  # long away
            assert client.feedback("shop", "d1", 1.0).status == "queued"
    assert len(asked) == 1


def test_threads_and_clients_share_a_queue(live: Live, tmp_path) -> None:
    path = tmp_path / "q.db"

    def work(client: Client, who: int) -> None:
        for i in range(15):
            assert client.feedback("shop", "d1", 1.0, id=f"{who}-{i:02}").status in ("kept", "repeated", "queued")

    with Client(live.url, queue=path, transport=Drops(3, 10)) as one, Client(live.url, queue=path) as other:
        threads = [threading.Thread(target=work, args=(client, who)) for who, client in enumerate((one, other, one))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        one.flush()
        assert one.queue is not None
        assert len(one.queue) == 0
    found = live.ids("shop", "feedback")
    assert sorted(found) == [f"{who}-{i:02}" for who in range(3) for i in range(15)]
    for who in "012":
        mine = [id for id in found if id.startswith(who)]
        assert mine == sorted(mine)


def test_a_file_that_is_no_queue_is_told(tmp_path) -> None:
    (tmp_path / "text").write_text("no database, whatever its name says" * 100)
    with pytest.raises(ClientError, match=r"the queue .*text cannot be used: file is not a database"):
        Queue(tmp_path / "text")
    with pytest.raises(ClientError, match="cannot be used: unable to open"):
        Queue(tmp_path / "nowhere" / "q.db")
    with Client("http://service") as client, pytest.raises(ValueError, match="this client has no queue"):
        client.flush()
