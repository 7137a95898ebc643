"""Full fine-tuning of a model on a selection, over several workers (COMPASS-FFT; COMPASS, section 4.3).

Key property: after every epoch each worker writes its shard of the state into the artifact of the model. The history is
written after all shards exist. The same number of workers resumes from the last complete epoch. No Ray: it runs in any
processes of one torch.distributed group.
"""

from compass_ray.full_finetuning.checkpoints import previous_workers
from compass_ray.full_finetuning.trainer_job import FullPlan, plan, train_full

__all__ = ["FullPlan", "plan", "previous_workers", "train_full"]
