"""DoRA adapters in vLLM, as a plugin: `vllm serve MODEL --enable-lora` then takes PEFT directories with `use_dora`.

    y = W x + bias + (s - 1) * (W x) + (s c B) A x,    s = m / ||W + c B A||  per output row    (Liu et al. 2024, section 4)

s is computed once, when an adapter is loaded, and folded into B. vLLM's own kernels then compute the last term. What is new is a
table of s - 1 in each layer, read with vLLM's own index of tokens. So base, LoRA and DoRA requests share a batch. vLLM is not
changed: the plugin wraps thirteen functions (`patches`), and only if all are as expected (`compatibility`).

The package needs vLLM and torch, and no other part of compass_ray. Importing it loads neither.
"""

from __future__ import annotations


def register() -> None:
    """Entry point `vllm.general_plugins`: install the patches once in this process, or leave vLLM as it is and log why."""
    from compass_ray.vllm_plugin.installation import install_once

    install_once()
