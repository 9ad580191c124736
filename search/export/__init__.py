"""What other programs read: CoarseLocalizationInfo, GeoJSON, KML and CSV.

records — the JSON's models and their schemas     infos — from stored answers to them
formats — one record in each format               files — a flight's newest runs, written whole or not at all
"""
