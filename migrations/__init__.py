"""Alembic migrations; a package, so that they run from an installed wheel too."""
