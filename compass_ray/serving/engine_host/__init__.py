"""What a replica of the adapter server holds: the adapters that are resident, and the thread that generates.

Key property: plain Python over an engine. It knows no Ray and no HTTP.
"""
