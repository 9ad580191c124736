"""The laboratories: how stable embeddings are when the aircraft turns or climbs, and what to do about it.

rotation, altitude — one experiment each, the questions asked of it and their answers
study — a question's way from its steps to its stored answer    ground — what views are cut from
truth — which reference is right for which frame                ways — the ways to be robust, compared
patches — patch tokens laid back by the turn                    timing — honest milliseconds
"""
