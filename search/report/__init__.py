"""Reports: one HTML file that holds everything, and its figures as PNG and SVG.

style — how figures look, light and dark        page — sections to HTML       texts — English and Korean
timing, accuracy — the figures of runs          laboratory — those of the rotation and altitude studies
pictures — thumbnails                           runs — which sections a report of runs has
"""
