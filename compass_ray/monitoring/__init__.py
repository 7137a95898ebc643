"""The traffic: what was answered, on its way to the monitor, in its windows, checks and offers, and what is kept of it.

Key property: a state is a fold over a log, so a monitor made anew goes on where the last one was. COMPASS, section 3.3.2. It
trains nothing, and knows no Ray: the actor around it is `monitor_actor`.
"""
