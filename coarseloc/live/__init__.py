"""A flight tracked while it is flown: frames from a source, the causal tracker, an estimate a frame to each output.

`sources` delivers frames, `backlog` holds them within the latency budget, `session` is the main path, `outputs` and the
modules beside it write. Read `session` first.
"""
