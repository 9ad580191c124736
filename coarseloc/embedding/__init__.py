"""Encoders: which there are (`specs`), where their weights lie (`weights`), and images to vectors (`backbone`).

torch and transformers are imported in this package alone, and only once something is loaded.
"""
