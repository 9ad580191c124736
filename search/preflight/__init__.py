"""Before hours are spent: what a map and a flight are, whether they fit each other, and what an ingest would cost.

The cheap part reads headers, labels and the database alone. The measured part reads a few tiles and embeds them.
"""
