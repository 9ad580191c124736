"""digests of blocks of frames beside the one of all"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.add_column("seals", sa.Column("blocks", sa.JSON(), nullable=True))


def downgrade() -> None:
    # A version without blocks would take the digest of blocks for one of all rows.
    op.execute("DELETE FROM seals WHERE blocks IS NOT NULL")
    op.drop_column("seals", "blocks")
