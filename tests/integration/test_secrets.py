"""Passwords in URLs reach nobody: no error, no diagnosis, no page, no log line."""

from __future__ import annotations

import pytest

from coarseloc.core import config
from coarseloc.core.errors import StoreError, without_passwords
from coarseloc.embedding.encoders import Encoders
from coarseloc.store import open_database
from web import create_app

HIDDEN = "hunter2"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://me:hunter2@db:6333/x is down", "http://me:***@db:6333/x is down"),
        ("'postgresql+psycopg://u:hunter2@h/d?sslmode=a'", "'postgresql+psycopg://u:***@h/d?sslmode=a'"),
        ("postgresql://h/d?user=u&password=hunter2&x=1.", "postgresql://h/d?user=u&password=***&x=1."),
        ("https://h?api_key=hunter2", "https://h?api_key=***"),
        ("postgresql://h/d?sslpassword=hunter2", "postgresql://h/d?sslpassword=***"),
        ("http://[::1]:6333 at 12:30, me@home", "http://[::1]:6333 at 12:30, me@home"),
        ("mail a@b.c, see http://h:80/a@b", "mail a@b.c, see http://h:80/a@b"),
    ],
)
def test_passwords_of_urls_become_stars_and_nothing_else_does(text, shown):
    assert without_passwords(text) == shown
    assert str(StoreError(text)) == shown


def test_no_command_and_no_page_shows_the_password_of_a_store(coarseloc, ingested, flight, state, monkeypatch, caplog):
    monkeypatch.setenv("COARSELOC_QDRANT_URL", f"http://me:{HIDDEN}@127.0.0.1:9")
    shown = caplog.text
    for command in (["doctor"], ["doctor", "--json"], ["lookup", flight / "251124155712_00001.jpg"], ["drain"]):
        with monkeypatch.context() as patched:  # a store that is down is found before seconds go into a model
            patched.setattr(Encoders, "load_matching", lambda *_: pytest.fail("a model was loaded"))
            done = coarseloc(*command)
        shown += done.out + done.err
    app = create_app(config.load(state))
    app.extensions["coarseloc"].vectors.catch_up()
    for address in ("/readyz", "/search.json", "/search", "/metrics"):
        shown += app.test_client().get(address, headers={"Accept": "text/html"}).get_data(as_text=True)
    app.extensions["coarseloc"].close()
    shown += caplog.text
    assert "127.0.0.1:9" in shown and HIDDEN not in shown


@pytest.mark.parametrize(
    "url", [f"postgresql+psycopg://u:{HIDDEN}@127.0.0.1:9/d", f"postgresql+psycopg://127.0.0.1:9/d?password={HIDDEN}"]
)
def test_a_database_that_does_not_answer_is_named_without_its_password(url):
    with pytest.raises(StoreError, match=r"127\.0\.0\.1:9") as error:
        open_database(url)
    assert HIDDEN not in str(error.value)


def test_a_setting_of_another_kind_is_named(tmp_path, monkeypatch):
    (tmp_path / "coarseloc.toml").write_text(f'qdrant_url = ["{HIDDEN}"]\n')
    with pytest.raises(config.ConfigError, match="qdrant_url"):
        config.load(tmp_path)
