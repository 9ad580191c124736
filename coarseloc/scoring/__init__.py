"""How good a localization is. Pure.

metrics — figures of a frame            judged — a run's frames beside the truth and the map
intervals — with n_eff                  rejection — how well a confidence tells right from wrong
pareto — what no other beats in both speed and accuracy
scores — figures of a run, one table: it stands on all of them
"""
