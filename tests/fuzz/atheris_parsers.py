"""Coverage-guided fuzzing of what reads people's text: `python tests/fuzz/atheris_parsers.py --seconds 60 [TARGET …]`.

libFuzzer looks for new branches of the Python code where hypothesis draws from shapes that we thought of. Each target
runs in a process of its own, which libFuzzer ends; an input that breaks one is kept and named. For where there is
atheris (pip install '.[fuzz]'); elsewhere this says so.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import redirect_stderr, suppress
from io import StringIO
from pathlib import Path
from urllib.parse import quote_from_bytes

try:
    import atheris
except ModuleNotFoundError:
    print("atheris is not installed: coverage-guided fuzzing is left out (pip install '.[fuzz]')")
    sys.exit(0)

_INSTRUMENTED = [
    "coarseloc.core.config",
    "coarseloc.imagery",
    "coarseloc.cli.options",
    "coarseloc.core.filters",
    "web.lookups",
    "csv",
    "tomllib",
]
with redirect_stderr(StringIO()), atheris.instrument_imports(_INSTRUMENTED, enable_loader_override=False):
    import click
    import flask
    import numpy as np

    from coarseloc.cli.options import Angles, Overlap
    from coarseloc.core import config, filters
    from coarseloc.core.errors import CoarselocError
    from coarseloc.core.filters import Where
    from coarseloc.core.types import BBox, LonLat, TileFacts
    from coarseloc.imagery.file_names import parse_capture, tile_key
    from coarseloc.imagery.labels import read_labels
    from web.lookups import where_of_address
    from web.problems import Problem

LIMITS = ("-timeout=5", "-rss_limit_mb=1024", "-max_len=4096")
FOLDER = Path(tempfile.gettempdir())  # a target's own: see main

_PLACE = LonLat(127.0, 37.5)
TILES = filters.columns(
    [TileFacts("p", "area", "area/00001", "place", 45, 300.0, 0.5, _PLACE, BBox(126.9, 37.4, 127.1, 37.6))]
)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _check_labels(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    with suppress(CoarselocError):
        for name, pose in read_labels(path).items():
            assert "/" not in name and "\\" not in name
            assert pose.location is None or (abs(pose.location.lat) <= 90 and abs(pose.location.lon) <= 180)
            assert pose.yaw_deg is None or 0 <= pose.yaw_deg < 360, pose.yaw_deg


def labels_json(data: bytes) -> None:
    _check_labels(FOLDER / "labels.json", data)


def labels_csv(data: bytes) -> None:
    _check_labels(FOLDER / "labels.csv", data)


def capture_names(data: bytes) -> None:
    name = _text(data)[:255]  # as long as a file system lets it be
    for turned in ("cw", "ccw"):
        capture = parse_capture(Path("/captures") / name.replace("/", "_"), turned)
        assert capture is None or (0 <= capture.angle_deg < 360 and 0 <= capture.overlap < 1)
        assert capture is None or 0 <= capture.altitude_m < float("inf")
    key = tile_key(name)
    assert key is None or (key[1] >= 0 and name.startswith(key[0]))


def settings(data: bytes) -> None:
    (FOLDER / "coarseloc.toml").write_bytes(data)
    with suppress(CoarselocError):
        found = config.load(FOLDER)
        assert found.input_px > 0 and all(backbone.name for backbone in found.backbones)


def options(data: bytes) -> None:
    text = _text(data)
    with suppress(click.BadParameter):
        assert 0 <= Overlap().convert(text, None, None) < 1
    with suppress(click.BadParameter):
        assert all(0 <= angle < 360 for angle in Angles().convert(text, None, None))
    for name in filters.KEYS:
        with suppress(CoarselocError):
            wanted = Where.parse({name: text})
            assert wanted.mask(TILES).shape == (1,) and Where.parse(wanted.to_texts()) == wanted


_APP = flask.Flask("fuzz")


def addresses(data: bytes) -> None:
    asked = quote_from_bytes(data, safe="=&%+,:")  # the server takes nothing but ASCII
    with _APP.test_request_context("/search", query_string=asked), suppress(CoarselocError, Problem):
        wanted = where_of_address([], ())
        assert wanted.mask(TILES).dtype == np.bool_


SEEDS: dict[Callable[[bytes], None], list[bytes]] = {
    labels_json: [
        b'{"images": [{"imageref": "a_00001.jpg", "position": {"x": null, "latitude": 37.5, "longitude": "127.0", '
        b'"altitude": 300}, "attitude": {"yaw": -45.0, "pitch": null, "roll": 0}}]}',
        b'\xef\xbb\xbf{"images": [{"imageref": "C:\\\\a\\\\b_1.jpg"}]}',
        b'{"images": [{"imageref": "utm_1.jpg", "position": {"latitude": 4150000.0, "longitude": 320000.0}}]}',
    ],
    labels_csv: [
        b"filename,lat,lon,alt,yaw\na_00001.jpg,37.5,127.0,300,45\na_00002.jpg,37.5,127.1,,\n",
        b'Image;Latitude;Longitude;Height_m;Heading;Pitch;Roll\r\n"x;1.jpg";37,5;127;;-90;1e9;0\r\n',
        b"name\tlat_deg\tlng\nb.jpg\t91\t181\n",
    ],
    capture_names: [
        b"251210182149_300_50_0_045",
        b"251210182149_300.5_66.7_1_360",
        b"251210182149_300_50_0_045_00001.jpg",
    ],
    settings: [
        b'input_px = 224\ndevice = "cpu"\n[[backbones]]\nname = "x"\npath = "/m"\nmean = [0.1, 0.2, 0.3]\n',
        b'qdrant_url = "http://h:6333"\nqdrant_timeout_s = 3.5\ntrusted_hosts = ["a"]\ntoken = "t"\n',
    ],
    options: [
        b"0,45,90",
        b"250:350",
        b"126.9,37.4,127.1,37.6",
        b"127.0,37.5,2000",
        b"50",
        b"179.9,-1,-179.9,1",
        b"nan",
    ],
    addresses: [
        b"angle=0,45&altitude=250:350&overlap=50&bbox=126.9,37.4,127.1,37.6",
        b"angle=0&angle=90&near=127,37.5,100&altitude=300&bbox=179.9,-1,-179.9,1",
    ],
}
TARGETS = {target.__name__: target for target in SEEDS}
WORDS = [
    "images", "imageref", "position", "attitude", "latitude", "longitude", "altitude", "yaw", "null", "1e999", "NaN",
    "filename", "lat", "lng", "heading", "_300_50_0_", "input_px", "[[backbones]]", "name", "path", "pooling", "mean",
    "data_dir", "trusted_hosts", "angle", "overlap", "bbox", "near", "reference-set", "-0.0", "-1e-20",
    "360", "\\xef\\xbb\\xbf",
]  # fmt: skip


def fuzz(name: str) -> None:
    """In a child: never returns."""
    global FOLDER
    FOLDER = Path(os.environ["COARSELOC_FUZZ_FOLDER"])
    for setting in [setting for setting in os.environ if setting.startswith("COARSELOC_")]:
        del os.environ[setting]
    atheris.Setup([sys.argv[0], *sys.argv[2:]], TARGETS[name])
    atheris.Fuzz()


def run(name: str, seconds: int) -> bool:
    """One target for so long; says how many inputs it has tried, or what broke it."""
    kept = Path(tempfile.mkdtemp(prefix=f"coarseloc-{name}-"))
    with tempfile.TemporaryDirectory(dir=kept) as corpus, tempfile.TemporaryDirectory(dir=kept) as scratch:
        for i, seed in enumerate(SEEDS[TARGETS[name]]):
            Path(corpus, str(i)).write_bytes(seed)
        words = Path(scratch, "words")
        words.write_text("\n".join(f'"{word}"' for word in WORDS))
        command = [
            sys.executable,
            __file__,
            f"--child={name}",
            corpus,
            f"-dict={words}",
            f"-artifact_prefix={kept}/",
            *LIMITS,
        ]
        done = subprocess.run(
            [*command, f"-max_total_time={seconds}", "-print_final_stats=1"],
            env=os.environ | {"COARSELOC_FUZZ_FOLDER": scratch},
            capture_output=True,
            text=True,
            errors="replace",
        )
    tried = re.search(r"number_of_executed_units:\s*(\d+)", done.stderr)
    branches = re.findall(r"cov: (\d+)", done.stderr) or ["?"]
    print(f"{name}: {int(tried[1]) if tried else 0:,} inputs, {branches[-1]} branches", flush=True)
    if done.returncode == 0:
        kept.rmdir()
        return True
    broke = re.search(r"=== Uncaught Python exception.*?\n==", done.stdout + done.stderr, re.DOTALL)
    print(f"{broke[0] if broke else done.stderr[-2000:]}\nthe input is in {kept}", flush=True)
    return False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", choices=[*TARGETS, []], metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    asked = parser.parse_args()
    results = [run(name, asked.seconds) for name in asked.targets or TARGETS]
    return 0 if all(results) else 1


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1].startswith("--child="):
        fuzz(sys.argv[1].removeprefix("--child="))
    sys.exit(main())
