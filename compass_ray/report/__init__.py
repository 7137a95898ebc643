"""What a run shows of itself: comparison tables, pictures and one self-contained HTML page.

Reads finished artefacts only and computes nothing that a stage has not written, but for intervals and
shares. Starts no Ray and imports no torch; nothing is imported eagerly.
"""
