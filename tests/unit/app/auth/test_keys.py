import re
from pathlib import Path

from app.auth import keys
from app.auth.scopes import Scope
from app.db.migrate import migrate
from app.db.models import ApiKeyRow
from app.db.session import connect, session_factory


def test_a_key_is_shown_once_and_only_its_hash_is_kept(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'keys.db'}"
    migrate(url)
    engine = connect(url)
    with session_factory(engine).begin() as session:
        assert not keys.exist(session)
        row, key = keys.create(session, "ci", Scope.SUBMIT)
        assert re.fullmatch("hf_[A-Za-z0-9]{34,}", key), "llama.cpp sends no other form"
        kept = {column.name: str(getattr(row, column.name)) for column in ApiKeyRow.__table__.columns}
        assert not [value for value in kept.values() if key in value]
        assert keys.find(session, key) is row
        assert keys.find(session, key[:-1] + "!") is None
        _, expired = keys.create(session, "old", Scope.ADMIN, valid_days=-1)
        assert keys.find(session, expired) is None
        assert keys.revoke(session, row.id)
        assert keys.find(session, key) is None
        assert keys.exist(session), "a revoked last key locks the service, it does not open it"
    engine.dispose()


def test_a_scope_includes_the_lesser_ones() -> None:
    assert Scope.ADMIN.includes(Scope.READ)
    assert Scope.SUBMIT.includes(Scope.SUBMIT)
    assert not Scope.READ.includes(Scope.SUBMIT)
