"""The engine of a replica: its thread, its loaded adapters, and its output streams. Knows no Ray and no HTTP."""
