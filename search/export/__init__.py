"""What other programs read: CoarseLocalizationInfo, GeoJSON, KML and CSV.

records — the JSON's models and their schemas     infos — from stored answers to them     fix_infos — from fixes
formats — a flight as one document, or as a table    features, kml — on a map     geometries — shapes on the ground
grid — x and y of a projected CRS     files — a flight's newest runs, written whole or not at all
"""
