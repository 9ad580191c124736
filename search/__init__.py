"""Search: flight frames in, ranked reference tiles, positions and records out."""
