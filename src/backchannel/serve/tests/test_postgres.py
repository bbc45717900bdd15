"""The ledger in PostgreSQL: its order, its right to learn, its connections, and what may be wrong with a store."""

import threading
import time
from typing import Any

import pytest

from backchannel.serve import postgres as module
from backchannel.serve.ledger import Entry, LedgerError
from backchannel.serve.postgres import PostgresLedger
from backchannel.serve.tests.postgres_server import Server


@pytest.mark.parametrize("level", ["read committed", "repeatable read"])
def test_whoever_has_read_up_to_a_seq_has_read_all_before_it(postgres: Server, level: str) -> None:
    database = postgres.database()
    postgres.sql(f"ALTER DATABASE {database} SET default_transaction_isolation TO '{level}'")
    ledgers = [PostgresLedger(postgres.url(database)) for _ in range(5)]
    reader = ledgers.pop()
    failed: list[Exception] = []

    def write(ledger: PostgresLedger, name: str) -> None:
        try:
            for i in range(60):
                ledger.append([Entry("shop", "decision", f"{name}{i} {j}", "", 0.0, b"") for j in range(1 + i % 3)])
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=each) for each in zip(ledgers, "abcd", strict=True)]
    for thread in threads:
        thread.start()
    found: list[Any] = []
    while any(thread.is_alive() for thread in threads) or not found or reader.last() > found[-1].seq:
        found += reader.read("shop", found[-1].seq if found else 0, 7)
    assert failed == []
    assert found == reader.read("shop", 0, 10_000)
    assert len(found) == reader.counts("shop")["decision"] == 4 * 120
    for ledger in [*ledgers, reader]:
        ledger.close()


def test_the_right_to_learn_lasts_while_learning_does(postgres: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEASE", 2.0)
    url = postgres.url(postgres.database())
    one, two = PostgresLedger(url), PostgresLedger(url)
    assert one.lease("one")  # and then it learns for a long time, without a word
    end = time.monotonic() + 2.5
    while time.monotonic() < end:
        assert not two.lease("two")
        time.sleep(0.05)
    one.close()
    assert two.lease("two")
    two.close()


def test_a_commit_is_durable_whatever_the_database_is_set_to(postgres: Server) -> None:
    database = postgres.database()
    postgres.sql(f"ALTER DATABASE {database} SET synchronous_commit TO off")
    ledger = PostgresLedger(postgres.url(database))
    ledger.append([Entry("shop", "decision", "a", "", 0.0, b"")])
    postgres.sql(
        "CREATE FUNCTION tell() RETURNS trigger AS $$ BEGIN NEW.about = current_setting('synchronous_commit');"
        " RETURN NEW; END $$ LANGUAGE plpgsql;"
        "CREATE TRIGGER tell BEFORE INSERT ON backchannel.entries FOR EACH ROW EXECUTE FUNCTION tell()",
        database,
    )
    ledger.append([Entry("shop", "decision", "b", "", 0.0, b"")])
    assert ledger.read("shop", 1, 9)[0].entry.about == "on"
    ledger.close()


def test_connections_that_the_server_closed_are_not_used(postgres: Server) -> None:
    database = postgres.database()
    ledger = PostgresLedger(postgres.url(database))
    ledger.append([Entry("shop", "decision", "a", "", 0.0, b"")])
    ends = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'backchannel'"
    assert postgres.sql(ends) == [(True,)]
    assert ledger.last() == 1
    ledger.close()


def test_what_is_wrong_with_a_store(postgres: Server) -> None:
    with pytest.raises(ValueError, match="is no URL of PostgreSQL"):
        PostgresLedger("postgresql://host:port/x?nothing=1")
    with pytest.raises(LedgerError, match='database "nowhere" does not exist'):
        PostgresLedger(postgres.url("nowhere"))
    latin = postgres.database("ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    with pytest.raises(LedgerError, match="needs a database in UTF8, not LATIN1"):
        PostgresLedger(postgres.url(latin))
    newer = postgres.database()
    PostgresLedger(postgres.url(newer)).close()
    postgres.sql("UPDATE backchannel.service SET format = 99", newer)
    with pytest.raises(LedgerError, match="has the ledger format 99; this version reads 1"):
        PostgresLedger(postgres.url(newer))
    forbidden = postgres.database()
    postgres.sql("CREATE ROLE guest LOGIN")
    with pytest.raises(LedgerError, match="permission denied"):
        PostgresLedger(postgres.url(forbidden, "guest"))
