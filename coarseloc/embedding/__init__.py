"""Encoders: which there are (`specs`, `encoders`), where their weights lie (`weights`), images to vectors (`backbone`).

torch and transformers are imported in this package alone, and only once something is loaded.
"""
