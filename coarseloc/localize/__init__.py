"""From pixels and hits to an answer. No SQL, no Flask.

localizer — the recipe: decode, embed, search, merge by place, refine, answer
places    — hits merged by place, the best place as an estimate, and how many backbones agree on it
metrics   — how good a localization is: errors, footprints, verdicts

registration — a frame on the map by orientation correlation: metres, heading, an ellipse, or no match (torch)
"""
