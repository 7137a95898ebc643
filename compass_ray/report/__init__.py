"""The report of a run: comparison tables, plots and one self-contained HTML page.

Reads complete artifacts only. Intervals and shares are the only values computed here. Starts no Ray and imports no torch.
Nothing is imported eagerly.
"""
