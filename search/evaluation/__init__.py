"""How good localizations are: evaluations of runs, studies of backbones, and both as reports.

evaluate — a run's frames beside the truth       summary — a run in a few figures, as commands and pages show it
scores — every figure of a run, one table         intervals — with n_eff
evaluated_frames — frames with the truth and the map
pareto — what no other beats in speed and accuracy
studies — how a turn and a climb change answers   report — one HTML file of figures and tables
"""
