"""Flights tracked: frames in their order, each looked for where the ones before let expect it.

`frames` makes of pictures what a tracker asks for, `grounds` says what a frame is looked for on, `flight_track` stores.
"""
