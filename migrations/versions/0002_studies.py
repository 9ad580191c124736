"""studies: stored curves of the laboratories and evaluations"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "studies",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("run_id", sa.Integer(), nullable=True),
        sa.Column("parameters", sa.JSON(), nullable=False),
        sa.Column("environment", sa.JSON(), nullable=False),
        sa.Column("findings", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["run_id"], ["search_runs.id"], name=op.f("fk_studies_run_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_studies")),
        sa.UniqueConstraint("kind", "digest", name=op.f("uq_studies_kind_digest")),
    )
    with op.batch_alter_table("studies", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_studies_kind"), ["kind"], unique=False)
        batch_op.create_index(batch_op.f("ix_studies_run_id"), ["run_id"], unique=False)

    op.create_table(
        "study_parts",
        sa.Column("study_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("part", sa.String(length=200), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name=op.f("fk_study_parts_study_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("study_id", "part", name=op.f("pk_study_parts")),
    )
    op.create_table(
        "study_points",
        sa.Column("study_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("backbone", sa.String(length=100), nullable=False),
        sa.Column("curve", sa.String(length=60), nullable=False),
        sa.Column("x", sa.Double(), nullable=False),
        sa.Column("y", sa.Double(), nullable=True),
        sa.Column("low", sa.Double(), nullable=True),
        sa.Column("high", sa.Double(), nullable=True),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["study_id"], ["studies.id"], name=op.f("fk_study_points_study_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("study_id", "backbone", "curve", "x", name=op.f("pk_study_points")),
    )


def downgrade() -> None:
    op.drop_table("study_points")
    op.drop_table("study_parts")
    with op.batch_alter_table("studies", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_studies_run_id"))
        batch_op.drop_index(batch_op.f("ix_studies_kind"))

    op.drop_table("studies")
