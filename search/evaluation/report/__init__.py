"""Reports: one HTML file that holds everything, and its figures as PNG and SVG.

style — how figures look, light and dark        page — sections to HTML       texts — English and Korean
timing, accuracy, trust — the figures of runs   pictures — thumbnails
curves, ways — the figures of studies           rotation, altitude — which of them, and the findings in words
runs, study — the two reports: `write_report`, `write_study`
"""
