"""Settings of adapters, their training and their evaluation (COMPASS, sections 3.2.4, 4.1 and 4.3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from compass_ray.config.base import ConfigSection, Fraction, Positive, Share
from compass_ray.config.harness import HarnessConfig, LongContextConfig

_ROW_TOKENS = 32
"""Tokens that a step has for each row of ``train.batch_size`` if ``train.step_tokens`` is unset."""


class AdapterConfig(ConfigSection):
    """Shape of the adapter (COMPASS, section 4.3)."""

    kind: Literal["dora", "lora"] = "dora"
    """Adapter type: ``lora`` (low-rank update) or ``dora`` (low-rank update with trained magnitudes, the paper's)."""
    r: Positive = 16
    """Rank of the adapter. A larger rank has more weights to train."""
    alpha: Positive = 32
    """Scale of the low-rank update, which is multiplied by ``alpha / r``."""
    dropout: Fraction = 0.0
    """Probability of dropout on the adapter's input during training."""
    target_modules: tuple[str, ...] = (
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    )
    """Names of the linear layers that get an adapter."""


class TrainConfig(ConfigSection):
    """Training of one adapter per language on a frozen base model (COMPASS, sections 3.2.4 and 4.3)."""

    base_model: str = "atlas"
    """Base model: ``atlas`` (in the package), a hub id, or a local path. It may name a variable, ``${NAME:-DEFAULT}``."""
    revision: str | None = None
    """Commit, tag or branch of the base model; the newest if unset. ``doctor --pin`` fixes it."""
    trust_remote_code: bool = False
    """Run Python code of the model's repository. Only needed by models that transformers does not know."""
    code_revision: str | None = None
    """Commit of the repository with the model's code, which may be another one; filled in by ``doctor --pin``."""
    unpinned_code: bool = False
    """Run the model's code although no commit fixes it."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Number type of the base model's weights. ``bfloat16`` takes half the memory."""
    adapter: AdapterConfig = AdapterConfig()
    """Type and size of the adapters."""
    learning_rate: Annotated[float, Field(gt=0.0)] = 2e-4
    """Peak learning rate of AdamW, after the warm-up."""
    betas: tuple[Annotated[float, Field(ge=0.0, lt=1.0)], Annotated[float, Field(ge=0.0, lt=1.0)]] = (0.9, 0.999)
    """AdamW's decay rates of the first and second moments."""
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.1
    """AdamW's weight decay of the low-rank factors."""
    decay_magnitude: bool = False
    """Also decay the DoRA magnitude vectors, as the paper's optimiser does; this shrinks them towards zero."""
    clip_norm: Annotated[float, Field(gt=0.0)] = 1.0
    """Maximum norm of a step's gradient; a larger one is scaled down."""
    warmup_ratio: Fraction = 0.1
    """Fraction of the steps in which the learning rate rises from 0 to its peak."""
    epochs: Positive = 3
    """Passes over the rows."""
    batch_size: Positive = 16
    """Rows of one optimizer step, over all workers of an adapter."""
    tokens: Positive | None = None
    """Tokens of prompts and replies that an adapter is trained on, for every method; passes over its rows (``epochs``) if unset.

    Rows are repeated or cut to this number. ``epochs`` then divides the steps into parts, ``patience`` has no effect, and the
    adapter of the last step is kept.
    """
    step_tokens: Positive | None = None
    """Tokens of one optimizer step if ``tokens`` is set; 32 for each row of ``batch_size`` if unset."""
    max_tokens: Positive = 2048
    """Maximum length of a training row in tokens. A longer conversation loses its first turns; a longer row is cut."""
    loss_turns: Literal["all", "last"] = "all"
    """Which replies of a conversation have a loss. Rows with one prompt and one response are the same either way."""
    holdout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.05
    """Fraction of the rows that measures the validation loss and is not trained on."""
    patience: Positive = 2
    """Epochs without a better validation loss before training stops."""
    layout: Literal["per_language", "pooled"] = "per_language"
    """One Ray Train run per language, or one run with workers that keep the base model and train languages in turn."""
    batches: Literal["padded", "packed"] = "padded"
    """Rows padded to one length, or packed into one sequence in which rows do not attend to each other."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, more time."""
    micro_batch_tokens: Positive | None = None
    """Padded tokens of one forward pass of a worker, at least one row; what fits into its memory if unset."""
    tracking: Literal["none", "tensorboard"] = "none"
    """Where losses and learning rates are logged: as event files below ``tracking/`` in the run directory."""

    @property
    def token_steps(self) -> int:
        """Optimizer steps of a training on ``tokens`` tokens.

        >>> TrainConfig(tokens=19_000).token_steps, TrainConfig(tokens=19_000, step_tokens=128).token_steps
        (37, 148)
        """
        return max(1, round((self.tokens or 0) / (self.step_tokens or _ROW_TOKENS * self.batch_size)))

    @model_validator(mode="after")
    def _epochs_have_steps(self) -> TrainConfig:
        if self.tokens is not None and self.token_steps < self.epochs:
            raise ValueError(
                f"train.tokens={self.tokens} with {self.tokens / self.token_steps:.0f} tokens for each step has fewer steps "
                f"({self.token_steps}) than train.epochs={self.epochs}; raise train.tokens, or lower train.step_tokens or "
                f"train.epochs"
            )
        return self

    def identity(self) -> dict[str, Any]:
        """The settings that shape an adapter: not the layout of its training, which changes rounding at most.

        >>> TrainConfig(batches="packed").identity() == TrainConfig().identity()
        True
        """
        unused = {"code_revision"} if self.code_revision is None else set()
        unused |= {"loss_turns"} if self.loss_turns == "all" else set()
        unused |= {"tokens", "step_tokens"} if self.tokens is None else set()
        layout = {"layout", "batches", "gradient_checkpointing", "micro_batch_tokens", "tracking"}
        return self.fingerprint_settings(exclude=layout | unused | {"unpinned_code"})


class EvaluateConfig(ConfigSection):
    """Multiple choice over the test sets (COMPASS, sections 4.1 and 5)."""

    scoring: Literal["letter", "option"] = "letter"
    """Score of an option: log-probability of its letter, or of its text as the reply."""
    batch_size: Positive = 32
    """Most questions that are scored at once."""
    batch_tokens: Positive | None = None
    """Most tokens of prompts and replies that are scored at once, at least one question; what fits into memory if unset."""
    resamples: Positive = 2000
    """Bootstrap resamples of each interval."""
    confidence: Share = 0.95
    """Confidence level of the intervals."""
    items_per_language: Positive | None = None
    """Maximum number of test items of each language; all if unset."""
    families: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)
    """Families of items that the report joins under one name; ``*`` is every family that is not listed. A family is the column
    ``family`` of the test set, or the first part of the subject, up to an underscore. Families weigh alike in a mean."""
    texts: str | None = None
    """Plain text whose bits per byte are measured: a UTF-8 file with one text on each line, also compressed. ``{language}`` is
    replaced by the language code, and ``${NAME}`` is read from the environment."""
    text_lines: Positive | None = 500
    """Lines of the text of each language that are scored, the first ones; all if unset."""
    harness: HarnessConfig = HarnessConfig()
    """Tasks of lm-evaluation-harness."""
    long_context: LongContextConfig = LongContextConfig()
    """Long prompts of OneRuler."""

    @model_validator(mode="after")
    def _families_are_named_once(self) -> EvaluateConfig:
        listed = [family for families in self.families.values() for family in families]
        if twice := sorted({family for family in listed if listed.count(family) > 1}):
            raise ValueError(f"families: {twice[0]!r} is listed twice; list it under one name")
        return self
