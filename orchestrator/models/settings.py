"""Which model is trained: one of this package by name, or a user's own class. Imports no PyTorch."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
)

from orchestrator.core.text import nearest

Widths = tuple[Annotated[int, Field(ge=1, le=65536)], ...]

MODELS: dict[str, dict[str, Any]] = {
    "mlp": {"hidden": (256, 256)},
    "cnn": {"channels": (32, 64), "hidden": (256,)},
    "resnet18": {"width": 20},
}
"""The models of this package: name -> the fields that belong to it, with their defaults."""

_OWN_CLASS: dict[str, Any] = {"options": {}}
_IDENTIFIER = r"[A-Za-z_][A-Za-z0-9_]*"
_OWN_NAME = rf"{_IDENTIFIER}(?:\.{_IDENTIFIER})*:{_IDENTIFIER}"
_NAME = rf"^(?:{'|'.join(MODELS)}|{_OWN_NAME})$"


class ModelSettings(BaseModel):
    """Which model is trained; part of a trial's identity.

    A field that is left out takes the default of its model. A field of another model must not be set. It is None and
    is not written, so it has no part in a trial's key.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str = Field(
        "mlp",
        description="mlp, cnn (convolutions, then an MLP), resnet18 (slim, for small images) or your own module:Class",
        json_schema_extra={"pattern": _NAME},
    )
    hidden: Widths | None = Field(
        None,
        min_length=1,
        max_length=100,
        validate_default=True,
        description="width of each hidden linear layer; mlp (256, 256 by default) and cnn (256)",
    )
    channels: Widths | None = Field(
        None,
        min_length=1,
        max_length=16,
        validate_default=True,
        description="output channels of each convolution, before 2x2 max-pooling; cnn only (32, 64 by default)",
    )
    width: int | None = Field(
        None,
        ge=1,
        le=1024,
        validate_default=True,
        description="channels of the first stage, doubled in each of the three others; resnet18 only (20 by default)",
    )
    init: Literal["pytorch", "xavier", "kaiming"] | None = Field(
        None,
        description="how first weights are drawn: pytorch (default), or xavier or kaiming with biases 0; heads too, "
        "and these alone of a class of yours",
    )
    options: dict[str, JsonValue] | None = Field(
        None,
        validate_default=True,
        description="keyword arguments of your own class, after the input shape; module:Class only",
    )

    @field_validator("name")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if not re.fullmatch(_NAME, name):
            raise ValueError(f"{', '.join(MODELS)} or module:Class; {nearest(name, MODELS)}")
        return name

    @field_validator("hidden", "channels", "width", "options")
    @classmethod
    def _belongs(cls, value: Any, info: ValidationInfo) -> Any:
        if "name" not in info.data:
            return value  # the name has an error of its own
        assert info.field_name is not None
        name = info.data["name"]
        defaults = MODELS.get(name, _OWN_CLASS)
        if info.field_name not in defaults and value is not None:
            raise ValueError(f"no {info.field_name} with model.name {name}; leave it out")
        return defaults.get(info.field_name) if value is None else value

    @field_validator("init")
    @classmethod
    def _default_is_none(cls, init: Any) -> Any:
        """Leave the default out of trials' keys, which are those of specs without it."""
        return None if init == "pytorch" else init

    @model_serializer(mode="wrap")
    def _own_fields(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in handler(self).items() if value is not None}

    def __repr_args__(self) -> list[tuple[str | None, Any]]:
        """Leave out fields of other models in messages."""
        return [(name, value) for name, value in super().__repr_args__() if value is not None]

    @property
    def is_own_class(self) -> bool:
        """Return whether the model is a user's own class."""
        return self.name not in MODELS
