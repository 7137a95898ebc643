"""The HTTP API in OpenAI's shapes: schema, middleware, routes and event streams over `inference.service.InferenceService`.

Uses FastAPI only, so it runs under Serve and in a plain test client. It selects no language or adapter and retries nothing.
COMPASS, section 3.2.5.
"""
