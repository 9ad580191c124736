"""what a finished ingest was asked and the files that it read"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    op.create_table(
        "finished_ingests",
        sa.Column("reference_set_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("question", sa.String(64), nullable=False),
        sa.Column("facts", sa.JSON(), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.ForeignKeyConstraint(
            ["reference_set_id"],
            ["reference_sets.id"],
            name=op.f("fk_finished_ingests_reference_set_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("reference_set_id", name=op.f("pk_finished_ingests")),
    )


def downgrade() -> None:
    op.drop_table("finished_ingests")
