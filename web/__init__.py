"""The web pages: a gallery of what the searches found."""

from web.app import create_app
from web.server import serve

__all__ = ["create_app", "serve"]
