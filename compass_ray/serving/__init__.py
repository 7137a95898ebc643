"""The Serve application: it routes each request to the right adapter and forwards traffic to the monitor.

Packages: `routing` selects the adapter of a request, `inference` gets the response, `api` speaks OpenAI's protocol over HTTP,
`engine_host` runs the engine in a replica, `metrics` counts, and `dashboard` is the operators' page. They are plain Python.
Only the modules beside them import Ray and put them on Ray Serve. `compass_ray.registry` says which adapter version is live,
`compass_ray.monitoring` detects drift. COMPASS, sections 3.2.5 and 3.3.
"""
