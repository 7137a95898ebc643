"""The one error of this layer: a model, adapter or input that cannot be used, with the next thing to do."""


class ModelError(ValueError):
    """A model, an adapter directory or an input that cannot be used; the message says what to do instead."""


class TooLongError(ModelError):
    """A prompt and the tokens asked for, together more than the model takes."""
