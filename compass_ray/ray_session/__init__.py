"""Ray as this project uses it: the session, one Train run, and what a worker's error says.

The one place that starts Ray, and that sets what Ray reads from the environment. It knows no stage.
"""

from compass_ray.ray_session.errors import told
from compass_ray.ray_session.session import prepare_environment, session, start, stop
from compass_ray.ray_session.training import fit

__all__ = ["fit", "prepare_environment", "session", "start", "stop", "told"]
