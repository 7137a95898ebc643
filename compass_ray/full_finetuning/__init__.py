"""Train a whole model from a selection artefact, over several workers, and publish it (COMPASS-FFT; COMPASS, section 4.3).

Key property: after every epoch each worker puts its own part of the state into the model's artefact, and the record of
the epochs is written when all parts are there; whoever comes next, as many as before, goes on from the last whole epoch.
No Ray: it runs in any processes that torch.distributed joins.
"""

from compass_ray.full_finetuning.checkpoints import previous_workers
from compass_ray.full_finetuning.trainer_job import FullPlan, plan, train_full

__all__ = ["FullPlan", "plan", "previous_workers", "train_full"]
