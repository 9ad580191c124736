"""What `coarseloc localizability` measured, as the pages show it."""

from __future__ import annotations

from coarseloc.core.config import load
from coarseloc.store import embeddings, open_database, references, tallies
from web.app import create_app


def test_maps_show_what_was_measured_of_each_place_and_say_when_the_references_have_changed(coarseloc, ingested, state):
    settings = load(state)
    client = create_app(settings).test_client()
    (before,) = client.get("/references.json").json["sets"]
    address = f"/references/{before['name']}/localizability.json"
    assert before["localizability"] == [] and before["map"]["localizability"] == []
    assert client.get(address).status_code == 404

    answer = coarseloc("localizability", "--excluded", "view", "--json").json["backbones"][0]
    (after,) = client.get("/references.json").json["sets"]
    assert after["map"]["localizability"] == [address]
    (ground,) = client.get(address).json["backbones"]
    summary = {name: value for name, value in ground.items() if name != "places"}
    assert after["localizability"] == [summary]
    assert summary["excluded"] == "view" and summary["is_current"]
    assert summary["median_error_m"] == answer["median_error_m"] and len(ground["places"]) == answer["places"] == 6
    shares = [right for _lon, _lat, _error, right, _margin in ground["places"]]
    assert abs(sum(shares) / 6 - summary["ground_share"]) < 1e-4

    db = open_database(settings.database)
    with db.write() as session:
        (stored,), (spec,) = references.reference_sets(session), embeddings.specs(session)
        tallies.record(session, tallies.next_generation(session), {(stored.id, spec.id): 0})
    db.close()
    assert not client.get(address).json["backbones"][0]["is_current"]
    assert "the references have changed since" in client.get("/references").text


def test_what_was_measured_and_cannot_be_read_is_to_be_measured_again(coarseloc, ingested, state, caplog):
    coarseloc("localizability")
    (path,) = (state / "localizability").glob("*/*.json")
    path.write_text("{}")
    client = create_app(load(state)).test_client()
    (view,) = client.get("/references.json").json["sets"]
    assert view["localizability"] == [] and str(path) in caplog.text
    answer = client.get(f"/references/{view['name']}/localizability.json")
    assert answer.status_code == 404 and "coarseloc localizability" in answer.json["detail"]
