"""Errors of models, adapters and their inputs."""


class ModelError(ValueError):
    """A model, an adapter directory or an input that cannot be used; the message says what to do."""


class TooLongError(ModelError):
    """The prompt and ``max_tokens`` together exceed the model's context."""
