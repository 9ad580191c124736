"""embedding_tallies: what a reference set holds of a spec, no longer counted at each opening"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "embedding_tallies",
        sa.Column("reference_set_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("spec_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("live", sa.Integer(), nullable=False),
        sa.Column("newest", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["reference_set_id"],
            ["reference_sets.id"],
            name=op.f("fk_embedding_tallies_reference_set_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["spec_id"], ["embedding_specs.id"], name=op.f("fk_embedding_tallies_spec_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("reference_set_id", "spec_id", name=op.f("pk_embedding_tallies")),
    )
    op.execute(
        "INSERT INTO embedding_tallies (reference_set_id, spec_id, live, newest) "
        "SELECT t.reference_set_id, e.spec_id, SUM(CASE WHEN e.deleted THEN 0 ELSE 1 END), MAX(e.generation) "
        "FROM embeddings e JOIN rotated_tiles r ON r.id = e.rotated_tile_id JOIN tiles t ON t.id = r.tile_id "
        "GROUP BY t.reference_set_id, e.spec_id"
    )


def downgrade() -> None:
    op.drop_table("embedding_tallies")
