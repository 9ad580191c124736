"""tags and notes of frames"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.create_table(
        "frame_tags",
        sa.Column("frame_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("tag", sa.String(80), nullable=False),
        sa.ForeignKeyConstraint(["frame_id"], ["frames.id"], name=op.f("fk_frame_tags_frame_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("frame_id", "tag", name=op.f("pk_frame_tags")),
    )
    op.create_index(op.f("ix_frame_tags_tag"), "frame_tags", ["tag"])
    op.create_table(
        "frame_notes",
        sa.Column("frame_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["frame_id"], ["frames.id"], name=op.f("fk_frame_notes_frame_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("frame_id", name=op.f("pk_frame_notes")),
    )


def downgrade() -> None:
    op.drop_table("frame_notes")
    op.drop_index(op.f("ix_frame_tags_tag"), table_name="frame_tags")
    op.drop_table("frame_tags")
