"""first schema"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    counters = op.create_table(
        "counters",
        sa.Column("name", sa.String(length=40), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_counters")),
    )
    # Every write takes the next generation from this row.
    op.bulk_insert(counters, [{"name": "generation", "value": 0}])
    op.create_table(
        "embedding_specs",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("backbone", sa.String(length=100), nullable=False),
        sa.Column("dim", sa.Integer(), nullable=False),
        sa.Column("facts", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_embedding_specs")),
        sa.UniqueConstraint("digest", name=op.f("uq_embedding_specs_digest")),
    )
    with op.batch_alter_table("embedding_specs", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_embedding_specs_backbone"), ["backbone"], unique=False)

    op.create_table(
        "flights",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("flight_id", sa.String(length=200), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("started_at", sa.DateTime(), nullable=True),
        sa.Column("truth_source", sa.String(length=20), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_flights")),
        sa.UniqueConstraint("flight_id", name=op.f("uq_flights_flight_id")),
    )
    op.create_table(
        "reference_sets",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("altitude_m", sa.Double(), nullable=True),
        sa.Column("overlap", sa.Double(), nullable=False),
        sa.Column("footprint_m", sa.Double(), nullable=True),
        sa.Column("angles", sa.JSON(), nullable=False),
        sa.Column("parameters", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reference_sets")),
        sa.UniqueConstraint("name", name=op.f("uq_reference_sets_name")),
    )
    op.create_table(
        "failures",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("reference_set_id", sa.Integer(), nullable=False),
        sa.Column("item", sa.String(length=1000), nullable=False),
        sa.Column("stage", sa.String(length=20), nullable=False),
        sa.Column("kind", sa.String(length=40), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["reference_set_id"],
            ["reference_sets.id"],
            name=op.f("fk_failures_reference_set_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_failures")),
        sa.UniqueConstraint("reference_set_id", "item", "stage", name=op.f("uq_failures_reference_set_id_item_stage")),
    )
    with op.batch_alter_table("failures", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_failures_reference_set_id"), ["reference_set_id"], unique=False)

    op.create_table(
        "frames",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("flight_pk", sa.Integer(), nullable=False),
        sa.Column("index", sa.Integer(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("lon", sa.Double(), nullable=True),
        sa.Column("lat", sa.Double(), nullable=True),
        sa.Column("altitude_label_m", sa.Double(), nullable=True),
        sa.Column("yaw_deg", sa.Double(), nullable=True),
        sa.Column("pitch_deg", sa.Double(), nullable=True),
        sa.Column("roll_deg", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["flight_pk"], ["flights.id"], name=op.f("fk_frames_flight_pk"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_frames")),
        sa.UniqueConstraint("flight_pk", "index", name=op.f("uq_frames_flight_pk_index")),
    )
    with op.batch_alter_table("frames", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_frames_flight_pk"), ["flight_pk"], unique=False)

    op.create_table(
        "search_runs",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("flight_pk", sa.Integer(), nullable=False),
        sa.Column("reference_set_id", sa.Integer(), nullable=False),
        sa.Column("spec_id", sa.Integer(), nullable=False),
        sa.Column("parameters", sa.JSON(), nullable=False),
        sa.Column("parameters_digest", sa.String(length=64), nullable=False),
        sa.Column("environment", sa.JSON(), nullable=False),
        sa.Column("index_build_ms", sa.Double(), nullable=False),
        sa.Column("references", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["flight_pk"], ["flights.id"], name=op.f("fk_search_runs_flight_pk"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["reference_set_id"],
            ["reference_sets.id"],
            name=op.f("fk_search_runs_reference_set_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["spec_id"], ["embedding_specs.id"], name=op.f("fk_search_runs_spec_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_search_runs")),
    )
    with op.batch_alter_table("search_runs", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_search_runs_flight_pk"), ["flight_pk"], unique=False)
        batch_op.create_index(batch_op.f("ix_search_runs_reference_set_id"), ["reference_set_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_search_runs_spec_id"), ["spec_id"], unique=False)

    op.create_table(
        "tiles",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("reference_set_id", sa.Integer(), nullable=False),
        sa.Column("index", sa.Integer(), nullable=False),
        sa.Column("place_id", sa.String(length=40), nullable=False),
        sa.Column("lon", sa.Double(), nullable=False),
        sa.Column("lat", sa.Double(), nullable=False),
        sa.Column("west", sa.Double(), nullable=False),
        sa.Column("south", sa.Double(), nullable=False),
        sa.Column("east", sa.Double(), nullable=False),
        sa.Column("north", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["reference_set_id"],
            ["reference_sets.id"],
            name=op.f("fk_tiles_reference_set_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tiles")),
        sa.UniqueConstraint("reference_set_id", "index", name=op.f("uq_tiles_reference_set_id_index")),
    )
    with op.batch_alter_table("tiles", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_tiles_reference_set_id"), ["reference_set_id"], unique=False)

    op.create_table(
        "frame_results",
        sa.Column("run_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("frame_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("decode_ms", sa.Double(), nullable=True),
        sa.Column("embed_ms", sa.Double(), nullable=True),
        sa.Column("search_ms", sa.Double(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["frame_id"], ["frames.id"], name=op.f("fk_frame_results_frame_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["run_id"], ["search_runs.id"], name=op.f("fk_frame_results_run_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("run_id", "frame_id", name=op.f("pk_frame_results")),
    )
    op.create_table(
        "rotated_tiles",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("tile_id", sa.Integer(), nullable=False),
        sa.Column("angle_deg", sa.Integer(), nullable=False),
        sa.Column("point_id", sa.String(length=36), nullable=False),
        sa.Column("stamp", sa.String(length=200), nullable=False),
        sa.Column("content_digest", sa.String(length=64), nullable=False),
        sa.Column("ground_fraction", sa.Double(), nullable=False),
        sa.Column("path", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["tile_id"], ["tiles.id"], name=op.f("fk_rotated_tiles_tile_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rotated_tiles")),
        sa.UniqueConstraint("point_id", name=op.f("uq_rotated_tiles_point_id")),
        sa.UniqueConstraint("tile_id", "angle_deg", name=op.f("uq_rotated_tiles_tile_id_angle_deg")),
    )
    with op.batch_alter_table("rotated_tiles", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_rotated_tiles_tile_id"), ["tile_id"], unique=False)

    op.create_table(
        "embeddings",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("rotated_tile_id", sa.Integer(), nullable=False),
        sa.Column("spec_id", sa.Integer(), nullable=False),
        sa.Column("content_digest", sa.String(length=64), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("indexed_generation", sa.BigInteger(), nullable=False),
        sa.Column("deleted", sa.Boolean(), nullable=False),
        sa.Column("vector", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["rotated_tile_id"],
            ["rotated_tiles.id"],
            name=op.f("fk_embeddings_rotated_tile_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["spec_id"], ["embedding_specs.id"], name=op.f("fk_embeddings_spec_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_embeddings")),
        sa.UniqueConstraint("rotated_tile_id", "spec_id", name=op.f("uq_embeddings_rotated_tile_id_spec_id")),
    )
    with op.batch_alter_table("embeddings", schema=None) as batch_op:
        batch_op.create_index(
            "ix_embeddings_behind",
            ["spec_id", "id"],
            unique=False,
            sqlite_where=sa.text("indexed_generation < generation"),
            postgresql_where=sa.text("indexed_generation < generation"),
        )
        batch_op.create_index("ix_embeddings_spec_id_generation", ["spec_id", "generation"], unique=False)

    op.create_table(
        "hits",
        sa.Column("run_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("frame_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("rank", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("rotated_tile_id", sa.Integer(), nullable=False),
        sa.Column("score", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["frame_id"], ["frames.id"], name=op.f("fk_hits_frame_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["rotated_tile_id"],
            ["rotated_tiles.id"],
            name=op.f("fk_hits_rotated_tile_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["run_id"], ["search_runs.id"], name=op.f("fk_hits_run_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "frame_id", "rank", name=op.f("pk_hits")),
    )


def downgrade() -> None:
    op.drop_table("hits")
    with op.batch_alter_table("embeddings", schema=None) as batch_op:
        batch_op.drop_index("ix_embeddings_spec_id_generation")
        batch_op.drop_index(
            "ix_embeddings_behind",
            sqlite_where=sa.text("indexed_generation < generation"),
            postgresql_where=sa.text("indexed_generation < generation"),
        )

    op.drop_table("embeddings")
    with op.batch_alter_table("rotated_tiles", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_rotated_tiles_tile_id"))

    op.drop_table("rotated_tiles")
    op.drop_table("frame_results")
    with op.batch_alter_table("tiles", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_tiles_reference_set_id"))

    op.drop_table("tiles")
    with op.batch_alter_table("search_runs", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_search_runs_spec_id"))
        batch_op.drop_index(batch_op.f("ix_search_runs_reference_set_id"))
        batch_op.drop_index(batch_op.f("ix_search_runs_flight_pk"))

    op.drop_table("search_runs")
    with op.batch_alter_table("frames", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_frames_flight_pk"))

    op.drop_table("frames")
    with op.batch_alter_table("failures", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_failures_reference_set_id"))

    op.drop_table("failures")
    op.drop_table("reference_sets")
    op.drop_table("flights")
    with op.batch_alter_table("embedding_specs", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_embedding_specs_backbone"))

    op.drop_table("embedding_specs")
    op.drop_table("counters")
