from datetime import UTC, datetime
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect, text
from uuid_utils import uuid7

from app.errors import InvalidSetting, Unavailable
from app.recipe import FeaturesInput, NetworkChoice, NewModel
from app.storage.database import Database
from app.storage.migrate import downgrade, require_current, upgrade
from app.storage.predictions import Encoded, PredictionLog, PredictionRecord
from app.storage.registry import ModelRegistry
from app.storage.tables import Base


def predicate(index: Any) -> str:
    return " ".join(str(value) for value in index.get("dialect_options", {}).values())


def shape(database: Database) -> dict[str, object]:
    inspector = inspect(database.engine)
    return {
        table: (
            sorted(
                (column["name"], str(column["type"]), column["nullable"]) for column in inspector.get_columns(table)
            ),
            sorted((index["name"], predicate(index)) for index in inspector.get_indexes(table)),
            sorted(str(key["constrained_columns"]) for key in inspector.get_foreign_keys(table)),
        )
        for table in inspector.get_table_names()
    }


def test_the_schema_survives_the_way_down_and_up_again(empty_url: str) -> None:
    database = Database(empty_url)
    upgrade(database)
    before = shape(database)
    downgrade(database, "base")
    assert set(shape(database)) <= {"alembic_version"}
    upgrade(database)
    upgrade(database)
    assert shape(database) == before
    require_current(database)
    database.close()


def test_the_tables_are_what_the_migrations_make(empty_url: str) -> None:
    database = Database(empty_url)
    upgrade(database)
    with database.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
    database.close()


def test_predictions_are_found_again_after_their_tables_changed_both_ways(empty_url: str) -> None:
    database = Database(empty_url)
    upgrade(database)
    new = NewModel(name="m", input=FeaturesInput(size=2), network=NetworkChoice(architecture="mlp"))
    model = ModelRegistry(database).create(new, "test").model
    log = PredictionLog(database)
    at = datetime(2026, 1, 2, 3, 4, 5, 678_000, UTC)
    records = [
        PredictionRecord(str(uuid7()), model.id, 3, "a", 0.5, [("a", 0.5), ("b", None)], bytes([n]) * n, at)
        for n in range(150)
    ]
    log.write([Encoded.of(record) for record in records])

    downgrade(database, "0003")
    with database.engine.connect() as connection:
        there = connection.execute(text("SELECT count(*), sum(nbytes) FROM predictions")).one()
        assert tuple(there) == (150, sum(range(150)) + 150 * 400)
        assert connection.execute(text("SELECT count(*) FROM prediction_inputs")).scalar_one() == 150
    upgrade(database)

    assert [log.get(model.id, one.id) for one in records] == records
    assert log.prune(days=30, nbytes=0) == 150
    database.close()


def test_one_running_update_per_lane_is_the_databases_own_rule(empty_url: str) -> None:
    database = Database(empty_url)
    upgrade(database)
    indexes = {index["name"]: index for index in inspect(database.engine).get_indexes("updates")}
    assert "running" in predicate(indexes["uq_updates_one_running"])
    assert indexes["uq_updates_one_running"]["unique"]
    database.close()


def test_an_unmigrated_database_is_refused_with_the_remedy(empty_url: str) -> None:
    database = Database(empty_url)
    with pytest.raises(Unavailable, match="perennial db upgrade"):
        require_current(database)
    database.close()


def test_other_databases_and_memory_are_refused() -> None:
    with pytest.raises(InvalidSetting, match="mysql"):
        Database("mysql://x/y")
    with pytest.raises(InvalidSetting, match="file"):
        Database("sqlite://")
