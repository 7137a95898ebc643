"""From a routed request to its response, complete or streamed, and every way in which it can fail.

Plain Python over protocols. HTTP is parsed in `api`; the engine generates.
"""
