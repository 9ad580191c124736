"""fixes of frames in metres; registration errors of maps, errors of truths"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

GPS_SD_M = 3.0  # of truths stored before anybody could say


def upgrade() -> None:
    op.create_table(
        "frame_fixes",
        sa.Column("localization_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("frame_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("match", sa.Boolean(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        *(sa.Column(name, sa.Double(), nullable=True) for name in ("score", "margin", "probability")),
        sa.Column("fit_digest", sa.String(64), nullable=True),
        sa.Column("conditions", sa.JSON(), nullable=True),
        *(
            sa.Column(f"{prefix}{name}", sa.Double(), nullable=True)
            for prefix in ("", "aircraft_")
            for name in ("lon", "lat", "cov_east_east_m2", "cov_east_north_m2", "cov_north_north_m2")
        ),
        sa.Column("heading_deg", sa.Double(), nullable=True),
        sa.Column("pose", sa.JSON(), nullable=True),
        sa.ForeignKeyConstraint(
            ["localization_id"], ["localizations.id"], name=op.f("fk_frame_fixes_localization_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["frame_id"], ["frames.id"], name=op.f("fk_frame_fixes_frame_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("localization_id", "frame_id", name=op.f("pk_frame_fixes")),
    )
    op.create_index(op.f("ix_frame_fixes_frame_id"), "frame_fixes", ["frame_id"])
    with op.batch_alter_table("reference_sets") as batch:
        batch.add_column(sa.Column("map_sd_m", sa.Double(), nullable=True))
    with op.batch_alter_table("flights") as batch:
        batch.add_column(sa.Column("truth_sd_m", sa.Double(), nullable=False, server_default=str(GPS_SD_M)))
    with op.batch_alter_table("flights") as batch:
        batch.alter_column("truth_sd_m", existing_type=sa.Double(), existing_nullable=False, server_default=None)


def downgrade() -> None:
    with op.batch_alter_table("flights") as batch:
        batch.drop_column("truth_sd_m")
    with op.batch_alter_table("reference_sets") as batch:
        batch.drop_column("map_sd_m")
    op.drop_index(op.f("ix_frame_fixes_frame_id"), "frame_fixes")
    op.drop_table("frame_fixes")
