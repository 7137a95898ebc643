"""What goes over the wire, one module an endpoint: requests, replies, stream chunks, feedback, the model list and errors.

Key property: what these models accept is what the endpoint can honour. Unknown fields of a request are ignored, as clients
send many, but a field whose meaning would be lost is refused. Replies carry one field that OpenAI's do not, ``compass``: the
route (COMPASS, section 3.2.5). Not here: where any of it goes.
"""
