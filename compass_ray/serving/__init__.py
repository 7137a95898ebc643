"""The Serve application: the right adapter for every language, and a record of the traffic.

`registry` says which adapter version is live, `routing` which one answers a request, `answering` and `api` speak OpenAI's
protocol, `adapters` generates, `monitoring` watches the traffic for drift, `numbers` counts, and `page` shows it all to
operators. What decides is plain Python in these rooms; the modules beside them put it on Ray Serve, and they alone import Ray.
COMPASS, sections 3.2.5 and 3.3.
"""
