"""The web pages: a gallery of what the searches found."""
