"""What the operator is told of a database that refuses."""

import pytest
from sqlalchemy import create_engine
from sqlalchemy.exc import OperationalError

from app.db.faults import no_answer


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
