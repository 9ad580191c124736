"""Everything that is read from users' image files; import from the modules.

captures, orthophoto — reference tiles, each a types.TileSource      flights — frames and their truth
raster, layout, bands — how an orthophoto is read and tiled          decode — pixels, digests, thumbnails
labels, label_json, label_csv, exif — what is known of an image      capture_tree — what lies in users' folders
paths — users' file names: their order, and what can be stored of them
"""
