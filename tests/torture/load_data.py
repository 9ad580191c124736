"""What the load test's server shows: the users' 36,672 rotated tiles under six backbones, and two flights; or few.

Vectors are drawn by lot and written straight into the store. The models that embed uploads are of the true
architecture with random weights; the first is as large as vits16 is, the others are as wide as theirs and shallow.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))  # as pytest has it

from gallery_sample import ANGLES, BACKBONES, Shape, make_gallery

from coarseloc.core import config
from coarseloc.core.config import Settings
from coarseloc.embedding.encoders import Encoders
from coarseloc.store import embeddings, open_database, references
from coarseloc.vectors import open_store, sync
from search.mirror import open_mirror

USERS = Shape(columns=191, rows=24, frames=500, own_pictures=False)
SMALL = Shape(columns=4, rows=3, frames=8)
QUERY = "query.jpg"
BUILT = "built.json"

_found = importlib.util.spec_from_file_location("shared_conftest", Path(__file__).parents[1] / "conftest.py")
assert _found and _found.loader
_shared = importlib.util.module_from_spec(_found)
_found.loader.exec_module(_shared)


def build(folder: Path, small: bool) -> float:
    """Fill `folder`, unless it holds the same already; returns the seconds that it took, 0 where nothing was done.

    Raises SystemExit for a folder that holds something else.
    """
    shape = SMALL if small else USERS
    facts = {"rotated_tiles": shape.columns * shape.rows * len(ANGLES), "backbones": len(BACKBONES)}
    mark = folder / BUILT
    if mark.exists() and json.loads(mark.read_text()) == facts:
        return 0.0
    if folder.exists() and any(folder.iterdir()):
        raise SystemExit(f"{folder} holds something else, or half of the data: delete it, or give another --data")
    started = time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    names = _models(folder, small)
    settings = config.load(folder)
    encoders = Encoders(settings)
    make_gallery(folder, replace(shape, specs={of: encoders.spec(name) for of, name in names.items()}))
    _derive(settings)
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    Image.fromarray(noise).resize((1024, 1024), Image.Resampling.BICUBIC).save(folder / QUERY, quality=90)
    mark.write_text(json.dumps(facts))
    return time.perf_counter() - started


def _models(folder: Path, small: bool) -> Mapping[str, str]:
    """{one of the six: the model in its place}, and the settings that name them."""
    rows = ["input_px = 224", 'device = "cpu"']
    names = {}
    for name, (dim, *_rest) in BACKBONES.items():
        first = not names
        width = (192 if first else 64) if small else dim
        model = folder / "models" / f"{width}-{12 if first else 1}"
        if not model.exists():
            _shared.build_dinov3(
                model,
                hidden_size=width,
                intermediate_size=4 * width if first else 64,
                num_hidden_layers=12 if first else 1,
                num_attention_heads=width // 64,
            )
        names[name] = f"like-{name}"
        rows += ["[[backbones]]", f'name = "{names[name]}"', f'path = "{model.absolute()}"']
    (folder / "coarseloc.toml").write_text("\n".join(rows) + "\n")
    return names


def _derive(settings: Settings) -> None:
    """What a server makes in its first minutes: collections and mirrors."""
    db = open_database(settings.database)
    with open_store(settings.data_dir, db.identity) as store:
        sync.drain(db, store)
    with db.read() as session:
        (stored,), specs = references.reference_sets(session), embeddings.specs(session)
    for spec in specs:
        open_mirror(db, settings.mirrors, stored, spec, notice=lambda _text: None)
    db.close()
