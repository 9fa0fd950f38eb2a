"""What the operator is told of a database that refuses."""

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import Session, sessionmaker

from app.db.faults import lacks_what_is_named, no_answer


@pytest.mark.postgres
def test_a_database_that_is_not_there_is_named_without_the_password(postgres_url: str) -> None:
    missing = create_engine(postgres_url).url.set(database="no_such_database", password="hush")
    with pytest.raises(OperationalError) as refused:
        create_engine(missing).connect()
    said = no_answer(refused.value)
    assert 'database "no_such_database" does not exist' in said
    assert said.endswith("look at STREAMLINE_DATABASE_URL.")
    assert "hush" not in said


def test_a_server_that_is_not_there_is_told_from_one_that_refuses() -> None:
    with pytest.raises(OperationalError) as refused:
        create_engine("postgresql+psycopg://u:hush@127.0.0.1:1/d").connect()
    assert "refused" in no_answer(refused.value)
    assert "hush" not in no_answer(refused.value)


@pytest.mark.parametrize(
    ("statement", "lacking"),
    [
        ("SELECT id FROM no_such_thing", True),
        ("SELECT no_such_thing FROM jobs", True),
        ("INSERT INTO jobs (no_such_thing) VALUES (1)", True),
        ("UPDATE jobs SET no_such_thing = 1", True),
        ("SELECT FROM WHERE", False),
        ("INSERT INTO workers (name) VALUES (NULL)", False),
    ],
)
def test_a_missing_table_or_column_is_told_from_other_refusals(
    sessions: sessionmaker[Session], statement: str, lacking: bool
) -> None:
    with sessions() as session, pytest.raises(DBAPIError) as refused:
        session.execute(text(statement))
    assert lacks_what_is_named(refused.value) is lacking
