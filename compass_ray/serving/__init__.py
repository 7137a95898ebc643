"""The Serve application: the right adapter for every language, and a record of the traffic.

`registry` says which adapter version is live, `router` which one answers a request, `answering` and `api` speak OpenAI's
protocol, `monitor` watches the traffic for drift, `statistics` counts, and `page` shows it all to operators; `app` puts them on
Ray Serve. What decides is plain Python; only `app`, `server`, `remote`, `ingress`, `monitor_actor` and `ray_metrics` import Ray.
COMPASS, sections 3.2.5 and 3.3.
"""
