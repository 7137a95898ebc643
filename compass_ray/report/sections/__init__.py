"""Sections of the page, one question per module. Each converts records into blocks and writes nothing."""
