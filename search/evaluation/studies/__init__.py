"""The laboratories: how stable embeddings are when the aircraft turns or climbs, and what to do about it.

rotation, altitude — one experiment each: what is looked at, and what it comes to
turns, patches — what a turn does to the global token, and to patch tokens
study — a question's way from its steps to its stored answer
ways — the ways to be robust, compared          truth — which reference is right for which frame
limits — what a study's figures cannot show
ground — what views are cut from                timing — honest milliseconds
"""
