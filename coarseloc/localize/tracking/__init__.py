"""A flight's frames as one track: motion between frames and fixes on the map, followed together. Pure.

motion       — how the ground in a frame's middle moved from one frame to the next, wherever that is known from
odometry     — that motion from the frames' own pictures
rank_grid    — the filter on ranks of a search: mass on a grid
rank_track   — a track by it, causal and smoothed
virtual_flights — how wide its ellipses are, learnt on the references
"""
