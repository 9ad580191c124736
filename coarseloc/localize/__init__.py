"""From pixels and hits to an answer. No SQL, no Flask.

localizer — the recipe: decode, embed, search, merge by place, refine, answer
places    — hits merged by place, and the best place as an estimate
agreement — how many backbones put a frame at the same place
"""
