"""The Serve application: the right adapter for every language, and a record of the traffic.

`registry` says which adapter version is live, `router` which one answers a request, `chat` and `http` speak
OpenAI's protocol, `monitor` watches the traffic for drift; `app` puts them on Ray Serve. What decides is
plain Python; only `app`, `server`, `ingress` and `monitor_actor` import Ray. COMPASS, sections 3.2.5 and
3.3.
"""
