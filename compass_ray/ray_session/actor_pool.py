"""A pool of Ray actors that each take the resources of one training worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from compass_ray.ray_session.train_runs import max_concurrent_workers

if TYPE_CHECKING:
    from compass_ray.config import Resources


def open_actor_pool(actor: type, resources: Resources, tasks: int, *arguments: Any) -> Any:
    """A `ray.util.ActorPool` with at most ``resources.train_workers`` actors, and no more than there are tasks.

    Args:
        actor: the class of the actors.
        resources: what each actor takes, and how often it is restarted.
        tasks: number of tasks for the pool.
        arguments: of the constructor of each actor.
    """
    import ray
    from ray.util import ActorPool

    remote: Any = ray.remote(actor).options(
        num_cpus=resources.cpus_per_worker,
        num_gpus=resources.gpus_per_worker,
        resources=dict(resources.worker_resources),
        max_restarts=resources.max_failures,
        max_task_retries=resources.max_failures,
    )
    count = max_concurrent_workers(resources, min(resources.train_workers, tasks))
    return ActorPool([remote.remote(*arguments) for _ in range(count)])
