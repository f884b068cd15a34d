"""How alembic reaches the database: the engine handed in, or the settings' address from the command line."""

from alembic import context

from app.settings import Settings
from app.storage.database import Database
from app.storage.tables import Base

engine = context.config.attributes.get("engine")
if engine is None:
    engine = Database(Settings().database_address).engine

with engine.connect() as connection:
    if connection.dialect.name == "postgresql":
        # Two processes that start together must not migrate at once.
        connection.exec_driver_sql("SELECT pg_advisory_lock(7240118)")
        connection.commit()
    try:
        context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True)
        with context.begin_transaction():
            context.run_migrations()
        connection.commit()
    finally:
        if connection.dialect.name == "postgresql":
            connection.rollback()
            connection.exec_driver_sql("SELECT pg_advisory_unlock(7240118)")
            connection.commit()
