"""The endpoint's HTTP interface in OpenAI's shapes: schema, guards, routes and event streams over `answering.AnswerService`.

Key property: FastAPI only, so it runs under Serve and in a bare test client alike. It decides nothing about languages,
adapters or retries. COMPASS, section 3.2.5.
"""
