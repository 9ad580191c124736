"""Rasters, captures, frames and labels: everything that is read from users' image files."""

from coarseloc.imagery.captures import CaptureSource, open_captures
from coarseloc.imagery.decode import content_digest, decode_image, read_image, thumbnail_path, write_thumbnail
from coarseloc.imagery.flights import open_flight
from coarseloc.imagery.labels import read_labels
from coarseloc.imagery.orthophoto import OrthophotoSource, cut_view, open_orthophoto

__all__ = [
    "CaptureSource",
    "OrthophotoSource",
    "content_digest",
    "cut_view",
    "decode_image",
    "open_captures",
    "open_flight",
    "open_orthophoto",
    "read_image",
    "read_labels",
    "thumbnail_path",
    "write_thumbnail",
]
