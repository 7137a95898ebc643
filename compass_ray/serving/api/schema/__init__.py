"""The API's data models, one module per endpoint: requests, responses, stream chunks, feedback, model list and errors.

The models accept only what the endpoint supports. Unknown request fields are ignored, because clients send many; a known field
that cannot be honoured is refused. Responses have one field beyond OpenAI's: ``compass``, the route (COMPASS, section 3.2.5).
"""
