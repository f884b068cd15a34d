"""API keys: random, so a plain digest keeps them; shown once, when made."""

import hashlib
import hmac
import secrets
from typing import NamedTuple

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from app.errors import Invalid, UnknownKey
from app.storage.database import Database, looks, now, reads, writes
from app.storage.kept_connection import Cursor
from app.storage.promotions import record
from app.storage.tables import Key

SCOPES = ("predict", "label", "admin")  # each may do what those before it may


_FIND = select(Key.digest, Key.name, Key.scope).where(Key.digest == bindparam("digest"), Key.revoked_at.is_(None))


class Holder(NamedTuple):
    """Whose key it is, and what it may do."""

    name: str
    scope: str


class KeyRing:
    """Makes, finds and revokes keys."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @writes
    def create(self, session: Session, name: str, scope: str) -> tuple[Key, str]:
        """A new key and its secret, which is kept nowhere."""
        secret = f"prn_{secrets.token_urlsafe(32)}"
        return _add(session, name, scope, secret), secret

    @looks
    def find(self, cursor: Cursor, secret: str) -> Holder | None:
        """Whose key has this secret, unless it was revoked."""
        digest = _digest(secret)
        for found, name, scope in cursor.rows(_FIND, digest=digest):
            if hmac.compare_digest(found, digest):
                return Holder(name, scope)
        return None

    @reads
    def list(self, session: Session) -> list[Key]:
        return list(session.scalars(select(Key).order_by(Key.id)))

    @writes
    def revoke(self, session: Session, key_id: int) -> Key:
        """End a key at once; its row remains for the audit log."""
        key = session.get(Key, key_id)
        if key is None:
            raise UnknownKey(str(key_id))
        if key.revoked_at is None:
            key.revoked_at = now(session)
            detail = {"key": key.id, "name": key.name}
            record(session, model_id=None, kind="key.revoked", actor="cli", reason="", at=key.revoked_at, detail=detail)
        return key

    @writes
    def ensure_admin(self, session: Session, secret: str = "") -> str | None:
        """See to it that an admin can get in.

        A given secret becomes a key unless it is one. Without one, a random key is made if no admin key is valid,
        and its secret is the answer, to be shown once.
        """
        if secret:
            if session.scalar(select(Key).where(Key.digest == _digest(secret))) is None:
                _add(session, "admin from settings", "admin", secret)
            return None
        if session.scalar(select(Key.id).where(Key.scope == "admin", Key.revoked_at.is_(None)).limit(1)) is not None:
            return None
        secret = f"prn_{secrets.token_urlsafe(32)}"
        _add(session, "first admin", "admin", secret)
        return secret


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _add(session: Session, name: str, scope: str, secret: str) -> Key:
    if scope not in SCOPES:
        raise Invalid(f"There is no scope {scope!r}. Choose one of: {', '.join(SCOPES)}.")
    at = now(session)
    key = Key(name=name, scope=scope, digest=_digest(secret), created_at=at)
    session.add(key)
    session.flush()
    record(
        session,
        model_id=None,
        kind="key.created",
        actor="cli",
        reason="",
        at=at,
        detail={"key": key.id, "name": name, "scope": scope},
    )
    return key
