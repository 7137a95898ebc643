"""lm-evaluation-harness on the adapters of a run: its own tasks, on rows that lie on this machine.

Prompts, metrics and few-shot examples are the harness's. This package says where rows are, and keeps results for each item.
"""
