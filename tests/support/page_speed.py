"""How long each page takes and how heavy it is, the first time and again: `python tests/support/page_speed.py FOLDER`.

FOLDER is a data folder; `gallery_sample.py FOLDER --scale` makes one of the users' size.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from coarseloc.core.config import Settings
from web import create_app


def main(folder: Path) -> None:
    app = create_app(Settings(data_dir=folder))
    client = app.test_client()
    flight = client.get("/flights.json").json["flights"][-1]
    app.extensions["coarseloc"].close()
    frame = f"{flight['url']}/{flight['frames'] // 2}"
    paths = ["/", flight["url"], frame, f"{flight['url']}/export", "/search", "/compare", "/rotation", "/references"]
    app = create_app(Settings(data_dir=folder))  # nothing remembered
    client = app.test_client()
    print(f"{'page':40s} {'first ms':>9s} {'(CPU)':>9s} {'again ms':>9s} {'kB':>8s}")
    for path in paths:
        first, cpu, size = _ask(client, path)
        again, _cpu, _size = _ask(client, path)
        print(f"{path:40s} {first:9.1f} {cpu:9.1f} {again:9.1f} {size / 1e3:8.1f}")
    app.extensions["coarseloc"].close()


def _ask(client, path: str) -> tuple[float, float, int]:
    started, cpu = time.perf_counter(), time.process_time()
    answer = client.get(path, headers={"Accept": "text/html"})
    assert answer.status_code == 200, f"{path} answered {answer.status_code}"
    return (time.perf_counter() - started) * 1e3, (time.process_time() - cpu) * 1e3, len(answer.data)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
