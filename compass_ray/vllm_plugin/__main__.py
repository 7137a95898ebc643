"""`python -m compass_ray.vllm_plugin`: print what the environment has, as one line of JSON."""

from compass_ray.vllm_plugin.status import print_status

print_status()
