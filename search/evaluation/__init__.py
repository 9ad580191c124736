"""How good localizations are: evaluations of runs, studies of backbones, and both as reports.

evaluate — a run's frames beside the truth       summary — a run in a few figures, as commands and pages show it
scores — every figure of a run, one table         intervals — with n_eff
judged — frames beside the truth and the map      rejection — how well a confidence tells right from wrong
pareto — what no other beats in speed and accuracy
studies — how a turn and a climb change answers   report — one HTML file of figures and tables
"""
