"""Reports: one HTML file that holds everything, and its figures as PNG and SVG.

runs, study — the two reports: `write_report`, `write_study`
plotted_run — a run as figures use it           timing, accuracy, confidence, fixes — sections of runs
tracks — sections of stored tracks
pictures — thumbnails of frames and hits        rotation, altitude — sections of studies, and findings as text
study_charts — charts and tables of studies
page — sections to HTML                         style — how figures look, light and dark
"""
