"""Files as an enemy, or a broken disk, would make them: labels, captures, images, GeoTIFFs."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from hostile import fuzzed, mutated, survives
from hypothesis import strategies as st
from PIL import Image

from coarseloc.core.types import LonLat, Pose, View
from coarseloc.imagery import labels
from coarseloc.imagery.captures import open_captures
from coarseloc.imagery.decode import decode_image, read_with_ground, write_thumbnail
from coarseloc.imagery.file_names import parse_capture, tile_key
from coarseloc.imagery.flights import open_flight
from coarseloc.imagery.geotiff import write_rgb
from coarseloc.imagery.image_facts import read_image_facts
from coarseloc.imagery.orthophoto import open_orthophoto

NUMBERS = st.one_of(
    st.none(), st.floats(), st.integers(), st.text(max_size=8), st.booleans(), st.just(10**400), st.just("1e999")
)
NAMES = st.one_of(st.text(max_size=30), st.sampled_from(["251210182149_300_50_0_000_00001.jpg", "../../etc/passwd"]))
ANY_JSON = st.recursive(NUMBERS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4))
PLACES = st.dictionaries(st.sampled_from(["x", "y", "z", "latitude", "longitude", "altitude"]), NUMBERS | ANY_JSON)
TURNS = st.dictionaries(st.sampled_from(["yaw", "pitch", "roll"]), NUMBERS | ANY_JSON)
IMAGES = st.fixed_dictionaries({"imageref": NAMES | ANY_JSON, "position": PLACES | ANY_JSON, "attitude": TURNS})
LABELS = st.fixed_dictionaries({"images": st.lists(IMAGES | ANY_JSON, max_size=5) | ANY_JSON}) | ANY_JSON
GOOD_LABELS = json.dumps(
    {"images": [{"imageref": "a_00001.jpg", "position": {"latitude": 37.5, "longitude": 127.0}, "attitude": {}}]}
).encode()


def picture(form: str, mode: str = "RGB", **options: object) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, form, **options)
    return file.getvalue()


def gps(**changes: object) -> bytes:
    exif = Image.Exif()
    where = {1: "N", 2: (37.0, 30.0, 1.5), 3: "E", 4: (127.0, 1.0, 2.0), 5: b"\x00", 6: 340.5}
    exif[0x8825] = where | changes
    exif[0x0112] = 6
    return picture("JPEG", exif=exif)


@fuzzed(content=st.data())
def test_labels_in_json(scratch, content):
    path = scratch / "labels.json"
    shaped = content.draw(LABELS.map(lambda value: json.dumps(value).encode()) | mutated(GOOD_LABELS) | st.binary())
    path.write_bytes(shaped)
    with survives():
        found = labels.read_labels(path)
        assert all(isinstance(pose, Pose) for pose in found.values())
        for pose in found.values():
            assert pose.location is None or (abs(pose.location.lat) <= 90 and abs(pose.location.lon) <= 180)


def test_labels_of_endless_depth(scratch):
    path = scratch / "deep.json"
    for content in ("[" * 200_000, '{"images":' * 50_000, '{"images": [' + "[" * 100_000):
        path.write_text(content)
        with survives():
            labels.read_labels(path)


@fuzzed(content=st.data())
def test_labels_in_tables(scratch, content):
    path = scratch / "labels.csv"
    good = b"filename,lat,lon,alt,yaw\na_00001.jpg,37.5,127.0,300,45\na_00002.jpg,37.5,127.1,,\n"
    cells = st.lists(st.lists(st.text(max_size=12), max_size=6).map(";".join), max_size=6).map("\n".join)
    path.write_bytes(content.draw(mutated(good) | cells.map(lambda text: ("file;lat;lon\n" + text).encode())))
    with survives():
        labels.read_labels(path)


FOLDERS = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=60) | (
    st.tuples(*[st.text("0123456789.-+eE٣", max_size=14)] * 5).map("_".join)
)


@fuzzed(folder=FOLDERS, file=FOLDERS)
def test_names_of_captures(folder, file):
    with survives():
        found = parse_capture(Path("/root") / folder, "cw")
        assert found is None or (0 <= found.angle_deg < 360 and 0 <= found.overlap < 1)
        tile_key(file)
        tile_key(f"{folder}_{file}.jpg")


@fuzzed(
    capture=st.from_regex(r"\A[0-9]{12}_[0-9.]{1,8}_[0-9.]{1,5}_[0-9a-z]_[0-9]{1,3}\Z"),
    files=st.lists(FOLDERS.filter(lambda name: len(name.encode()) < 200), max_size=4),
    content=LABELS,
)
def test_whole_capture_trees(scratch, capture, files, content):
    root = scratch / "tree"
    for old in sorted(root.rglob("*"), reverse=True):
        old.rmdir() if old.is_dir() else old.unlink()
    (root / capture).mkdir(parents=True)
    names = [f"{capture}_00001.jpg", *(f"{name}.jpg" for name in files)]
    for name in names:
        (root / capture / name).write_bytes(b"no picture")
    good = [{"imageref": names[0], "position": {"latitude": 37.5, "longitude": 127.0}}]
    (root / f"{capture}.json").write_text(json.dumps({"images": good}))
    (root / "more.json").write_text(json.dumps(content))
    with survives():
        for source in open_captures(root, footprint_m=300.0):
            for tile in source.tiles:
                assert not any(isinstance(view, View) for view in source.views(tile, source.angles_of(tile)))
    with survives():
        open_flight(root / capture)


PICTURES = {
    "jpeg": picture("JPEG"),
    "progressive": picture("JPEG", progressive=True),
    "png": picture("PNG"),
    "palette": picture("PNG", "P"),
    "tiff": picture("TIFF"),
    "deflated": picture("TIFF", compression="tiff_deflate"),
    "webp": picture("WEBP"),
    "gps": gps(),
}


@pytest.mark.parametrize("form", PICTURES)
@fuzzed(content=st.data())
def test_images(scratch, content, form):
    data = content.draw(mutated(PICTURES[form], within=content.draw(st.sampled_from([64, 400, None]))))
    with survives():
        pixels = decode_image(data, "upload", 60_000_000)
        assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
        write_thumbnail(pixels, scratch / "thumbnail.jpg")
    path = scratch / "image.jpg"
    path.write_bytes(data)
    with survives():
        read_image_facts(path)
        read_with_ground(path)


@fuzzed(where=st.dictionaries(st.integers(0, 31), st.binary(max_size=12) | st.integers(0, 2**16) | st.text(max_size=6)))
def test_gps_of_any_type(scratch, where):
    exif = Image.Exif()
    exif[0x8825] = where
    try:
        data = picture("JPEG", exif=exif)
    except Exception:  # what Pillow would not write is not ours to read
        return
    path = scratch / "gps.jpg"
    path.write_bytes(data)
    with survives():
        pose = read_image_facts(path).exif_pose
        assert pose.location is None or (abs(pose.location.lat) <= 90 and abs(pose.location.lon) <= 180)


@pytest.fixture(scope="module")
def geotiff(tmp_path_factory) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
    return write_rgb(
        tmp_path_factory.mktemp("raster") / "a.tif", pixels, center=LonLat(127.0, 37.5), gsd_m=1.0
    ).read_bytes()


@fuzzed(content=st.data())
def test_geotiffs(scratch, geotiff, content):
    path = scratch / "area.tif"
    path.write_bytes(content.draw(mutated(geotiff, within=content.draw(st.sampled_from([16, 600, None])))))
    for sidecar in scratch.glob("area.tif.*"):
        sidecar.unlink()
    with survives():
        source = open_orthophoto(path, footprint_m=40.0, overlap=0.0, angles=(0, 45), tile_px=64)
        for tile in source.tiles[:2]:
            list(source.views(tile, (0, 45)))
