"""Everything that is read from users' image files; import from the modules.

captures, orthophoto — reference tiles, each a types.TileSource      flights — frames and their truth
raster, layout, windows — how an orthophoto is read and tiled        decode — pixels, digests, thumbnails
labels, label_files, exif — poses and times of images                file_names — users' folders and files by name
"""
