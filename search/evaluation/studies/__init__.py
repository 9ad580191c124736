"""Studies: how stable embeddings are when the aircraft turns or climbs, and which strategy is robust to it.

rotation, altitude — one experiment each, its curves and its strategies   patches — patch tokens under rotation
study — runs an experiment in resumable steps and stores its result       limits — what its results cannot show
strategies — accuracy, costs and gains of strategies on the same frames
positions — metres by the global token, by patch tokens and by orientation correlation
ground — orthophoto or pictures that views are cut from                   ground_truth — which reference is right
"""
