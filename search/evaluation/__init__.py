"""Evaluate localizations: scores of runs, studies of backbones, and reports of both.

evaluate — a run's answers against the truth, its scores as JSON and CSV
summary — a run in a few numbers, for commands and pages
fix_evaluation — fixes against the truth, of a run or of a whole map without any backbone
scores, fix_scores — the tables of all scores     intervals — estimates with a 95 % interval and n_eff
evaluated_frames, evaluated_fixes — answers with truth and map
rejection — precision and recall over a confidence threshold
pareto — the runs that no other beats in speed and accuracy
studies — embeddings under rotation and altitude  report — one HTML file of figures and tables
"""
