"""vLLM as the engine. `startup` opens it for a configuration. Importing this package loads neither vLLM nor torch."""
