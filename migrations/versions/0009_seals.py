"""digests of the rows that answers are read from"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.create_table(
        "seals",
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("owner", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("digest", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("kind", "owner", name=op.f("pk_seals")),
    )
    op.add_column("embeddings", sa.Column("row_digest", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("embeddings") as table:
        table.drop_column("row_digest")
    op.drop_table("seals")
