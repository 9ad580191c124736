"""Rasters, captures, frames and labels: everything that is read from users' image files."""
