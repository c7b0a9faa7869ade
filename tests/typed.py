"""The type in which a service under test computes."""

from __future__ import annotations

from serve.settings import DType, Settings

WITH_WEIGHTS = ("encoder", "selector", "decoder")


def typed(settings: Settings, dtype: DType = "float32") -> Settings:
    """With these stages in this type. In float32 answers are those of `models.vlm` in process but for the order of
    sums, on any machine."""
    update = {stage: getattr(settings, stage).model_copy(update={"dtype": dtype}) for stage in WITH_WEIGHTS}
    return settings.model_copy(update=update)
