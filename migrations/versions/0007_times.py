"""by what clock a flight's frames know the time, and what their altitudes are above"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    with op.batch_alter_table("flights") as batch:
        batch.add_column(sa.Column("time_source", sa.String(20), nullable=True))
        batch.add_column(sa.Column("utc_offset_s", sa.Integer(), nullable=True))
        batch.add_column(sa.Column("interval_s", sa.Double(), nullable=True))
    # Times stored so far came from EXIF or labels, and nothing says which.
    op.execute(
        "UPDATE flights SET time_source = 'index' WHERE NOT EXISTS "
        "(SELECT 1 FROM frames WHERE frames.flight_pk = flights.id AND frames.taken_at IS NOT NULL)"
    )
    with op.batch_alter_table("frames") as batch:
        batch.add_column(sa.Column("altitude_datum", sa.String(20), nullable=False, server_default="unknown"))
    with op.batch_alter_table("frames") as batch:
        batch.alter_column("altitude_datum", existing_type=sa.String(20), existing_nullable=False, server_default=None)


def downgrade() -> None:
    with op.batch_alter_table("frames") as batch:
        batch.drop_column("altitude_datum")
    with op.batch_alter_table("flights") as batch:
        for name in ("interval_s", "utc_offset_s", "time_source"):
            batch.drop_column(name)
