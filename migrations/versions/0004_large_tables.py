"""indexes for a million embeddings: what is behind is counted, and a tile deleted, without looking at all rows"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

BEHIND = sa.text("indexed_generation < generation")


def upgrade() -> None:
    with op.batch_alter_table("embeddings", schema=None) as batch_op:
        batch_op.drop_index("ix_embeddings_behind")
        batch_op.create_index(
            "ix_embeddings_behind",
            ["spec_id", "id", "generation", "indexed_generation"],
            unique=False,
            sqlite_where=BEHIND,
            postgresql_where=BEHIND,
        )
        batch_op.drop_index("ix_embeddings_spec_id_generation")
        batch_op.create_index(
            "ix_embeddings_spec_id_indexed_generation", ["spec_id", "indexed_generation"], unique=False
        )
    with op.batch_alter_table("hits", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_hits_rotated_tile_id"), ["rotated_tile_id"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("hits", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_hits_rotated_tile_id"))
    with op.batch_alter_table("embeddings", schema=None) as batch_op:
        batch_op.drop_index("ix_embeddings_spec_id_indexed_generation")
        batch_op.create_index("ix_embeddings_spec_id_generation", ["spec_id", "generation"], unique=False)
        batch_op.drop_index("ix_embeddings_behind")
        batch_op.create_index(
            "ix_embeddings_behind", ["spec_id", "id"], unique=False, sqlite_where=BEHIND, postgresql_where=BEHIND
        )
