"""A flight's runs as one file to hand on: what was asked, of what, on what, and what was answered.

archive — the zip with its digests     signature — a key's word for it     records — the shapes inside
contents — select them from the stores     inputs — the same files here?     reproduction — the same answers here?
"""
