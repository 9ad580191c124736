"""Capture trees: places, headings, footprints; and what is wrong with a tree is named."""

from __future__ import annotations

import json
import os
import shutil
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from coarseloc.core import geo, ids
from coarseloc.core.errors import ImageryError, InputError
from coarseloc.core.types import Failure, LonLat, View
from coarseloc.imagery.captures import CaptureSource, open_captures
from coarseloc.imagery.file_names import parse_capture

GANGNAM = LonLat(127.02765, 37.49792)
WriteCaptures = Callable[..., Path]


def only(root: Path, **options: Any) -> CaptureSource:
    (source,) = open_captures(root, **options)
    return source


def kinds(source: CaptureSource) -> Counter[str]:
    return Counter(failure.kind for failure in source.failures)


def edit_labels(
    root: Path, change: Callable[[dict[str, Any]], dict[str, Any] | None], file: str = "labels-300.json"
) -> None:
    """Rewrite each entry, or drop it where `change` returns None."""
    path = root / file
    images = json.loads(path.read_text())["images"]
    path.write_text(json.dumps({"images": [new for image in images if (new := change(image)) is not None]}))


def test_a_tree_becomes_a_reference_set_with_places_and_headings(capture_tree: WriteCaptures) -> None:
    source = only(capture_tree(angles=range(0, 360, 45)))
    reference_set = source.reference_set
    assert reference_set.name == "refs-300m-50"
    assert (reference_set.kind, reference_set.altitude_m, reference_set.overlap) == ("captures", 300.0, 0.5)
    assert reference_set.angles == tuple(range(0, 360, 45))
    assert [tile.index for tile in source.tiles] == [1, 2, 3, 4, 5, 6]
    assert source.angles_of(source.tiles[3]) == reference_set.angles
    assert not source.failures


def test_a_tiles_centre_is_its_label_and_its_side_spacing_over_what_does_not_overlap(
    capture_tree: WriteCaptures,
) -> None:
    source = only(capture_tree(stride_m=100))
    assert source.reference_set.footprint_m == pytest.approx(200, rel=0.005)
    tile = source.tiles[4]  # second row, second column
    assert geo.distance_m(*tile.center, *geo.offset(GANGNAM, 100, -100)) < 0.1
    assert geo.distance_m(tile.bbox.west, tile.center.lat, tile.bbox.east, tile.center.lat) == pytest.approx(
        200, rel=0.01
    )


@pytest.mark.parametrize(("picture_px", "row_stride_m"), [((8, 6), 75.0), ((6, 8), 400 / 3)])
def test_captures_that_are_not_square_have_rectangular_tiles(
    capture_tree: WriteCaptures, picture_px: tuple[int, int], row_stride_m: float
) -> None:
    source = only(capture_tree(stride_m=100, row_stride_m=row_stride_m, picture_px=picture_px))
    assert source.reference_set.footprint_m == pytest.approx(200, rel=0.005) and not source.notices
    assert geo.box_size_m(source.tiles[4].bbox) == pytest.approx((200, 2 * row_stride_m), rel=0.005)
    assert source.reference_set.picture_px == picture_px


def test_a_grid_that_contradicts_its_pictures_shape_is_told_of(capture_tree: WriteCaptures) -> None:
    (notice,) = only(capture_tree(stride_m=100, picture_px=(8, 6))).notices
    assert "200 m wide" in notice and "267 m by those from north to south" in notice


def test_an_explicit_footprint_is_taken(capture_tree: WriteCaptures) -> None:
    assert only(capture_tree(), footprint_m=123.0).reference_set.footprint_m == 123.0


def test_a_view_is_its_file(capture_tree: WriteCaptures) -> None:
    source = only(capture_tree(angles=(0, 90)))
    views = list(source.views(source.tiles[2], (90, 0)))
    assert all(isinstance(view, View) for view in views)
    first, second = (view for view in views if isinstance(view, View))
    assert (first.angle_deg, second.angle_deg) == (90, 0)
    assert first.pixels[0, 0].tolist() == [3, 45, 30] and second.pixels[0, 0].tolist() == [3, 0, 30]
    assert first.path is not None and first.path.name == "251210182149_300_50_0_090_00003.png"
    assert first.ground_fraction == 1.0 and first.content_digest != second.content_digest


def test_two_altitudes_are_two_sets(capture_tree: WriteCaptures) -> None:
    root = capture_tree()
    capture_tree(root, altitude=600, stride_m=200)
    low, high = open_captures(root)
    assert (low.reference_set.name, high.reference_set.name) == ("refs-300m-50", "refs-600m-50")
    assert high.reference_set.footprint_m == pytest.approx(400, rel=0.005)
    named = open_captures(root, name="seoul")
    assert [source.reference_set.name for source in named] == ["seoul-300m-50", "seoul-600m-50"]


def test_an_altitude_without_labels_does_not_stop_the_other(capture_tree: WriteCaptures) -> None:
    root = capture_tree()
    capture_tree(root, altitude=600, labelled=False)
    source = only(root)
    assert source.reference_set.altitude_m == 300
    (failure,) = source.failures
    assert failure.kind == "missing-label" and "600m-50" in failure.item


def test_a_name_is_used_as_it_is_where_there_is_one_set(capture_tree: WriteCaptures) -> None:
    assert only(capture_tree(), name="gangnam").reference_set.name == "gangnam"


def test_one_capture_folder_can_be_the_root(capture_tree: WriteCaptures) -> None:
    root = capture_tree(angles=(0, 45))
    source = only(root / "251210182149_300_50_0_045")  # its labels lie beside it
    assert source.reference_set.angles == (45,)
    assert len(source.tiles) == 6 and not source.failures


def test_a_set_turned_the_other_way_is_stored_as_headings(capture_tree: WriteCaptures) -> None:
    source = only(capture_tree(angles=(0, 45, 90)), turned="ccw")
    assert source.reference_set.angles == (0, 270, 315)
    (view,) = source.views(source.tiles[0], [315])
    assert isinstance(view, View) and view.path is not None and view.path.parent.name.endswith("_045")


@pytest.mark.parametrize("pad", [4, 5])
def test_indices_may_be_padded_to_four_or_five_and_labels_otherwise(capture_tree: WriteCaptures, pad: int) -> None:
    root = capture_tree(pad=pad)

    def padded_otherwise(image: dict[str, Any]) -> dict[str, Any]:
        capture, index = image["imageref"].removesuffix(".png").rsplit("_", 1)
        return image | {"imageref": f"{capture}_{int(index):0{9 - pad}d}.jpg"}

    edit_labels(root, padded_otherwise)
    source = only(root)
    assert len(source.tiles) == 6 and not source.failures


def test_labels_may_lie_inside_each_capture_or_be_named(capture_tree: WriteCaptures, tmp_path: Path) -> None:
    root = capture_tree()
    (root / "labels-300.json").rename(root / "251210182149_300_50_0_000" / "x.json")
    assert len(only(root).tiles) == 6
    (root / "251210182149_300_50_0_000" / "x.json").rename(tmp_path / "elsewhere.json")
    assert len(only(root, labels=tmp_path / "elsewhere.json").tiles) == 6
    with pytest.raises(ImageryError, match="there is none"):
        open_captures(root)


def test_one_headings_label_places_all_headings(capture_tree: WriteCaptures) -> None:
    root = capture_tree(angles=(0, 45))
    edit_labels(root, lambda image: image if "_045_" in image["imageref"] else None)
    source = only(root)
    assert source.reference_set.angles == (0, 45) and len(source.tiles) == 6 and not source.failures


def test_a_missing_label_is_a_failure_and_the_rest_go_on(capture_tree: WriteCaptures) -> None:
    root = capture_tree()
    edit_labels(root, lambda image: None if image["imageref"].endswith("_00002.png") else image)
    source = only(root)
    assert [tile.index for tile in source.tiles] == [1, 3, 4, 5, 6]
    (failure,) = source.failures
    assert (failure.kind, failure.stage) == ("missing-label", "list")
    assert failure.item.endswith("_000_00002.png") and "labels-300.json" in failure.message


def test_a_label_with_plane_coordinates_only_says_so(capture_tree: WriteCaptures) -> None:
    root = capture_tree()

    def plane(image: dict[str, Any]) -> dict[str, Any]:
        if not image["imageref"].endswith("_00002.png"):
            return image
        return image | {"position": {"x": 1.5, "y": 2.5, "latitude": None, "longitude": None}}

    edit_labels(root, plane)
    (failure,) = only(root).failures
    assert failure.kind == "missing-label" and "gives: x, y" in failure.message


def test_metres_in_one_label_are_a_failure_and_in_all_an_error(capture_tree: WriteCaptures) -> None:
    root = capture_tree()
    metres = {"latitude": 4_150_000.0, "longitude": 325_000.0}
    edit_labels(root, lambda i: i | {"position": metres} if i["imageref"].endswith("_00002.png") else i)
    source = only(root)
    assert kinds(source) == {"wrong-crs": 1} and len(source.tiles) == 5
    edit_labels(root, lambda image: image | {"position": metres})
    with pytest.raises(ImageryError, match=r"metres of a projected CRS.*--label-crs") as error:
        open_captures(root)
    assert error.value.kind == "wrong-crs"


def test_masks_and_other_cameras_pictures_beside_tiles_are_one_failure_a_capture(capture_tree: WriteCaptures) -> None:
    root = capture_tree()
    capture = root / "251210182149_300_50_0_000"
    for word in ("mask", "T", "thumb"):
        Image.new("RGB", (8, 8)).save(capture / f"{capture.name}_00003_{word}.png")
    source = only(root)
    (failure,) = source.failures
    assert failure.kind == "bad-name" and "3 of its pictures are left out" in failure.message


def test_a_duplicate_tile_is_a_failure_and_the_first_is_kept(capture_tree: WriteCaptures) -> None:
    root = capture_tree()
    capture = root / "251210182149_300_50_0_000"
    shutil.copy(capture / f"{capture.name}_00003.png", capture / f"{capture.name}_0003.png")
    later = root / "251211000000_300_50_0_045"
    later.mkdir()
    Image.new("RGB", (8, 8)).save(later / f"{later.name}_00001.png")
    source = only(root)
    assert kinds(source) == {"duplicate-tile": 1, "unplaced-capture": 1}
    assert len(source.tiles) == 6
    (view,) = source.views(source.tiles[0], [45])
    assert isinstance(view, View) and view.path is not None and view.path.parent.name.startswith("251210")


def test_a_picture_whose_labels_contradict_each_other_is_left_out_and_its_tile_stays(
    capture_tree: WriteCaptures,
) -> None:
    root = capture_tree(angles=(0, 45))
    images = json.loads((root / "labels-300.json").read_text())["images"]
    (second,) = (image for image in images if image["imageref"].endswith("_045_00002.png"))
    away = {"imageref": second["imageref"], "position": {"latitude": 37.6, "longitude": 127.1}}
    (root / "labels-300.json").write_text(json.dumps({"images": [*images, away]}))
    source = only(root)
    (failure,) = source.failures
    assert failure.kind == "label-conflict" and failure.item.endswith("_045_00002.png")
    assert "contradict" in failure.message
    assert source.angles_of(source.tiles[1]) == (0,) and len(source.tiles) == 6


# --- grids -----------------------------------------------------------------------------------------

ELSEWHERE = geo.offset(GANGNAM, 40, -500)  # its tiles overlap with the others': a route of its own
LATER = "251212090000"


def names(sources: Sequence[CaptureSource]) -> list[str]:
    return [source.reference_set.name for source in sources]


def test_two_grids_of_one_height_are_two_sets(capture_tree: WriteCaptures) -> None:
    root = capture_tree()
    capture_tree(root, stamp=LATER, corner=ELSEWHERE, columns=4)
    first, second = open_captures(root)
    assert names([first, second]) == ["refs-300m-50", f"refs-300m-50-{LATER}"]
    assert (len(first.tiles), len(second.tiles)) == (6, 8)
    assert geo.distance_m(*first.tiles[0].center, *GANGNAM) < 0.1
    assert geo.distance_m(*second.tiles[0].center, *ELSEWHERE) < 0.1
    assert kinds(first) == {"another-grid": 1}
    assert names(open_captures(root, name="강남")) == ["강남-300m-50", f"강남-300m-50-{LATER}"]


def test_headings_of_one_grid_may_be_captured_at_different_times(capture_tree: WriteCaptures) -> None:
    root = capture_tree(angles=(0,))
    capture_tree(root, angles=(45,), stamp=LATER)
    capture_tree(root, angles=(90,), stamp="251213090000", labelled=False)
    source = only(root)
    assert source.reference_set.angles == (0, 45, 90)
    assert len(source.tiles) == 6 and not source.failures


def test_headings_without_labels_join_the_grid_of_their_own_time(capture_tree: WriteCaptures) -> None:
    root = capture_tree(angles=(0, 45))
    edit_labels(root, lambda image: image if "_000_" in image["imageref"] else None)
    capture_tree(root, angles=(0, 45), stamp=LATER, corner=ELSEWHERE)
    edit_labels(root, lambda image: image if "_000_" in image["imageref"] else None, f"labels-300-{LATER}.json")
    first, second = open_captures(root)
    for source, stamp in ((first, "251210182149"), (second, LATER)):
        assert source.reference_set.angles == (0, 45)
        for view in source.views(source.tiles[0], (0, 45)):
            assert isinstance(view, View) and view.path is not None and view.path.name.startswith(stamp)


def test_a_capture_that_no_label_places_joins_no_grid_that_has_its_heading(capture_tree: WriteCaptures) -> None:
    root = capture_tree(angles=(0, 45))
    capture_tree(root, angles=(0, 45, 90), stamp=LATER, corner=ELSEWHERE, columns=4, labelled=False)
    source = only(root)
    assert len(source.tiles) == 6 and source.reference_set.angles == (0, 45)
    assert kinds(source) == {"unplaced-capture": 3}
    assert all("--labels" in failure.message for failure in source.failures)


def test_a_heading_with_few_labels_joins_the_grid_that_they_are_of(capture_tree: WriteCaptures) -> None:
    """The first grid numbers none of its labelled tiles."""
    root = capture_tree()
    capture_tree(root, angles=(0, 45), stamp=LATER, corner=ELSEWHERE, columns=4)

    def beyond_the_first(image: dict[str, Any]) -> dict[str, Any] | None:
        return image if "_000_" in image["imageref"] or image["imageref"][-9:-4] > "00006" else None

    edit_labels(root, beyond_the_first, f"labels-300-{LATER}.json")
    first, second = open_captures(root)
    assert (len(first.tiles), len(second.tiles)) == (6, 8)
    assert second.reference_set.angles == (0, 45)


def test_grids_of_one_time_have_names_of_their_own(capture_tree: WriteCaptures, tmp_path: Path) -> None:
    root, images = tmp_path / "refs", []
    for angle, south_m in ((0, 0), (45, -900), (90, -1800)):
        capture_tree(root, angles=(angle,), corner=geo.offset(GANGNAM, 0, south_m))
        images += json.loads((root / "labels-300.json").read_text())["images"]
    (root / "labels-300.json").write_text(json.dumps({"images": images}))
    stamp = "251210182149"
    assert names(open_captures(root)) == [
        "refs-300m-50", f"refs-300m-50-{stamp}", f"refs-300m-50-{stamp}-2",
    ]  # fmt: skip


@pytest.mark.parametrize("folder", ["강남", "Été", "Straße", "日本 2025"])
def test_a_set_is_named_after_its_folder_in_any_script_and_spelling(
    tmp_path: Path, capture_tree: WriteCaptures, folder: str
) -> None:
    for form in ("NFC", "NFD"):
        root = capture_tree(tmp_path / form / unicodedata.normalize(form, folder))
        name = only(root).reference_set.name
        assert name == unicodedata.normalize("NFC", f"{folder.lower().replace(' ', '-')}-300m-50")


@given(st.text(string.printable, max_size=20))
def test_a_name_in_ascii_is_what_it_always_was(folder: str) -> None:
    """Sets that are there go on under their names."""
    assert ids.set_name(folder) == ids.slug(folder)


def test_a_heading_whose_label_lies_elsewhere_is_left_out(capture_tree: WriteCaptures) -> None:
    root = capture_tree(angles=(0, 45, 90), stride_m=100)

    def moved(image: dict[str, Any]) -> dict[str, Any]:
        step = {"_045_00002.png": 80, "_090_00002.png": 20}.get(image["imageref"][-14:], 0)
        place = geo.offset(LonLat(image["position"]["longitude"], image["position"]["latitude"]), step, 0)
        return image | {"position": {"longitude": place.lon, "latitude": place.lat}}

    edit_labels(root, moved)
    source = only(root)
    (failure,) = source.failures
    assert failure.kind == "label-conflict" and "80 m" in failure.message
    assert source.angles_of(source.tiles[1]) == (0, 90)
    assert source.angles_of(source.tiles[0]) == (0, 45, 90)


def test_the_gulf_of_guinea_is_a_legal_place(capture_tree: WriteCaptures) -> None:
    assert only(capture_tree(corner=LonLat(0.0, 0.0))).tiles[0].center == LonLat(0.0, 0.0)


def test_a_tile_at_latitude_0_longitude_0_far_from_all_others_has_no_position(capture_tree: WriteCaptures) -> None:
    def without_fix(image: dict[str, Any]) -> dict[str, Any]:
        return image | {"position": {"latitude": 0, "longitude": 0}} if "_00002." in image["imageref"] else image

    root = capture_tree()
    edit_labels(root, without_fix)
    source = only(root)
    assert [tile.index for tile in source.tiles] == [1, 3, 4, 5, 6] and kinds(source) == {"missing-label": 1}
    assert "latitude 0, longitude 0" in source.failures[0].message


def test_a_folder_of_images_with_another_name_is_listed_and_one_without_images_is_not(
    capture_tree: WriteCaptures,
) -> None:
    root = capture_tree()
    for name in ("holiday", "251210182149_300_100_0_000", "notes"):
        (root / name).mkdir()
    Image.new("RGB", (8, 8)).save(root / "holiday" / "a.jpg")
    Image.new("RGB", (8, 8)).save(root / "251210182149_300_100_0_000" / "a.jpg")
    source = only(root)
    assert kinds(source) == {"not-a-capture": 2}


def test_an_image_with_another_name_is_listed_and_other_files_are_not(capture_tree: WriteCaptures) -> None:
    root = capture_tree()
    capture = root / "251210182149_300_50_0_000"
    for name in ("cover.png", "Thumbs.db", ".hidden.png", "251210182149_300_50_0_045_00001.png"):
        (capture / name).write_bytes(b"x")
    source = only(root)
    assert kinds(source) == {"bad-name": 2}


def test_names_that_are_no_text_are_listed_as_text(capture_tree: WriteCaptures) -> None:
    root = capture_tree()
    odd = os.fsdecode(b"\xe9")
    try:
        (root / odd).mkdir()
        for path in (root / "251210182149_300_50_0_000" / f"{odd}.png", root / odd / "a.png", root / f"{odd}.json"):
            path.write_bytes(b"{")
        (root / "labels-300.json").rename(root / f"{odd}{odd}.json")
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    source = only(root)
    assert kinds(source) == {"bad-name": 1, "not-a-capture": 1, "unreadable-label": 1}
    assert all(r"\xe9" in failure.item for failure in source.failures)
    assert source.reference_set.parameters["labels"] == [str(root / r"\xe9\xe9.json")]
    assert all(failure.message.encode() for failure in source.failures)


def test_a_broken_label_file_is_named(capture_tree: WriteCaptures) -> None:
    root = capture_tree()
    (root / "broken.json").write_text("{")
    source = only(root)
    assert kinds(source) == {"unreadable-label": 1} and len(source.tiles) == 6


def test_a_file_that_cannot_be_read_is_a_failure_and_the_next_view_comes(capture_tree: WriteCaptures) -> None:
    root = capture_tree()
    capture = root / "251210182149_300_50_0_000"
    (capture / f"{capture.name}_00001.png").write_bytes(b"")
    source = only(root)
    (capture / f"{capture.name}_00002.png").unlink()
    broken, view = source.views(source.tiles[0], (0, 45))
    assert isinstance(broken, Failure) and (broken.kind, broken.stage) == ("empty", "read")
    assert isinstance(view, View)
    (deleted,) = source.views(source.tiles[1], [0])
    assert isinstance(deleted, Failure) and deleted.kind == "missing-file"
    (never,) = source.views(source.tiles[1], [135])
    assert isinstance(never, Failure) and never.kind == "missing-file"


def test_a_source_fingerprint_changes_with_the_file(capture_tree: WriteCaptures) -> None:
    root = capture_tree()
    source = only(root)
    path = root / "251210182149_300_50_0_000" / "251210182149_300_50_0_000_00001.png"
    before = source.source_fingerprint(source.tiles[0], 0)
    assert before == source.source_fingerprint(source.tiles[0], 0) != source.source_fingerprint(source.tiles[0], 45)
    os.utime(path, (1, 1))
    touched = source.source_fingerprint(source.tiles[0], 0)
    path.unlink()
    assert len({before, touched, source.source_fingerprint(source.tiles[0], 0)}) == 3


@pytest.mark.parametrize("state", ["missing", "empty", "a file", "folders of another kind"])
def test_a_root_without_captures_is_refused(tmp_path: Path, state: str) -> None:
    root = tmp_path / "root"
    if state == "a file":
        root.write_text("")
    elif state != "missing":
        (root / "other" if state == "folders of another kind" else root).mkdir(parents=True)
    with pytest.raises(InputError, match="<YYMMDDhhmmss>"):
        open_captures(root)


def test_captures_without_images_are_refused(tmp_path: Path) -> None:
    (tmp_path / "r" / "251210182149_300_50_0_000").mkdir(parents=True)
    with pytest.raises(InputError, match="no images"):
        open_captures(tmp_path / "r")


def test_a_single_place_needs_a_footprint(capture_tree: WriteCaptures) -> None:
    root = capture_tree(columns=1, rows=1)
    with pytest.raises(InputError, match="footprint"):
        open_captures(root)
    assert len(only(root, footprint_m=200).tiles) == 1


@pytest.mark.parametrize("footprint", [0.0, -1.0])
def test_an_impossible_footprint_is_refused(capture_tree: WriteCaptures, footprint: float) -> None:
    with pytest.raises(InputError, match="footprint"):
        open_captures(capture_tree(), footprint_m=footprint)


def test_listing_sixteen_hundred_images_decodes_none(tmp_path: Path) -> None:
    root, images = tmp_path / "big", []
    for angle in range(0, 360, 45):
        capture = root / f"251210182149_300_50_0_{angle:03d}"
        capture.mkdir(parents=True)
        for index in range(1, 201):
            (capture / f"{capture.name}_{index:05d}.jpg").touch()  # empty: to decode one would be a failure
            place = geo.offset(GANGNAM, index % 40 * 100, -(index // 40) * 100)
            position = {"latitude": place.lat, "longitude": place.lon}
            images.append({"imageref": f"{capture.name}_{index:05d}.jpg", "position": position})
    (root / "labels.json").write_text(json.dumps({"images": images}))
    source = only(root)
    assert len(source.tiles) == 200 and not source.failures


def test_an_overlap_below_1_in_a_folders_name_is_a_fraction(tmp_path: Path) -> None:
    capture = parse_capture(tmp_path / "251210182149_300_0.5_0_045", "cw")
    assert capture and capture.overlap == 0.5


def test_pictures_that_lie_deeper_or_in_no_capture_are_listed(capture_tree: WriteCaptures) -> None:
    root = capture_tree(angles=(0, 45, 90))
    _, deeper, _ = sorted(folder for folder in root.iterdir() if folder.is_dir())
    (root / "day1").mkdir()
    deeper.rename(root / "day1" / deeper.name)
    Image.new("RGB", (8, 8)).save(root / "stray.png")
    source = only(root)
    assert source.reference_set.angles == (0, 90)
    assert [Path(failure.item).name for failure in source.failures] == [deeper.name, root.name]
    assert all(failure.kind == "not-a-capture" for failure in source.failures)


def test_pictures_of_a_size_that_cannot_be_are_doubted(capture_tree: WriteCaptures) -> None:
    assert any("from 3000 m come out 200" in notice for notice in only(capture_tree(altitude=3000)).notices)


def test_captures_whose_pictures_are_of_several_sizes_are_said(capture_tree: WriteCaptures) -> None:
    root = capture_tree()
    for picture in root.glob("*_045/*.png"):
        Image.new("RGB", (8, 4)).save(picture)
    assert any("are of 2 sizes" in notice for notice in only(root).notices)


def test_a_capture_that_is_there_twice_is_one_failure(capture_tree: WriteCaptures) -> None:
    root = capture_tree(angles=(0, 45))
    shutil.copytree(root / "251210182149_300_50_0_000", twin := root / "251210182149_300_50_0_360")
    for picture in sorted(twin.iterdir()):
        picture.rename(twin / picture.name.replace("_000_", "_360_"))
    source = only(root)
    assert source.reference_set.angles == (0, 45) and kinds(source) == {"duplicate-tile": 1}
    assert "6 of its pictures are tiles at 000" in source.failures[0].message
