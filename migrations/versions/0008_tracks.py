"""tracks of flights, frame by frame"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.create_table(
        "track_estimates",
        sa.Column("localization_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("frame_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        *(
            sa.Column(f"{prefix}{name}", sa.Double(), nullable=True)
            for prefix in ("", "aircraft_")
            for name in ("lon", "lat", "cov_east_east_m2", "cov_east_north_m2", "cov_north_north_m2")
        ),
        *(sa.Column(name, sa.Double(), nullable=True) for name in ("heading_deg", "heading_sd_deg", "scale")),
        sa.Column("speed_mps", sa.Double(), nullable=True),
        *(sa.Column(name, sa.Double(), nullable=False) for name in ("probability", "p_off_map", "p_blind")),
        sa.Column("odometry", sa.String(20), nullable=False),
        sa.Column("reset_counter", sa.Integer(), nullable=False),
        sa.Column("measured", sa.Boolean(), nullable=False),
        sa.Column("searched", sa.String(20), nullable=True),
        sa.Column("alternatives", sa.JSON(), nullable=False),
        sa.Column("evidence", sa.JSON(), nullable=True),
        sa.ForeignKeyConstraint(
            ["localization_id"],
            ["localizations.id"],
            name=op.f("fk_track_estimates_localization_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["frame_id"], ["frames.id"], name=op.f("fk_track_estimates_frame_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("localization_id", "frame_id", name=op.f("pk_track_estimates")),
    )
    op.create_index(op.f("ix_track_estimates_frame_id"), "track_estimates", ["frame_id"])


def downgrade() -> None:
    op.drop_index(op.f("ix_track_estimates_frame_id"), "track_estimates")
    op.drop_table("track_estimates")
