"""Web pages and a JSON API over the flights, searches and references of one data folder."""

from web.app import create_app
from web.server import serve

__all__ = ["create_app", "serve"]
