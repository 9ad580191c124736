"""Registration of a frame on a map by orientation correlation: position, heading, scale and tilt. Pure.

    field       — luma to orientation field
    geometry    — a frame's pose on a window, and its homography
    frame       — a frame's luma at any resolution, warped onto a window
    spectra     — a frame's field at all headings and scales, transformed
    correlation — scores of all hypotheses over a window, and their peaks
    settings    — what decides a registration's numbers
    coarse      — windows of a map, and the best places over them
    blocks      — local correlation surfaces, and the pose that maximises their sum
    confidence  — covariance, ellipse and probability of a pose
    registrar   — the recipe: coarse, fine, finest
    threads     — one of torch's a job, several jobs side by side
    fix         — the answer: ground and aircraft with covariances, or no match and why

Pieces of the map are `core.windows.MapWindow`s.

Importing this package imports no torch; its modules do, so nothing else in `coarseloc.localize` imports them at top.
"""
