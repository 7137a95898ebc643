"""Errors of models, adapters and their inputs."""

import pickle


class ModelError(ValueError):
    """A model, an adapter directory or an input that cannot be used; the message says what to do."""


class TooLongError(ModelError):
    """The prompt and ``max_tokens`` together exceed the model's context."""


def describe_loading_error(error: Exception) -> str:
    """What went wrong while a model was loaded, in one line. Leaves out a library's advice to load it unsafely."""
    if isinstance(error, pickle.UnpicklingError):
        return (
            "its weights are a damaged pickle file, or one that runs code; use a version with safetensors files, or convert it "
            "to safetensors on an isolated machine"
        )
    if "trust_remote_code" in str(error):
        return "it needs Python code of its repository; read that code, then set trust_remote_code and pin its commit"
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
