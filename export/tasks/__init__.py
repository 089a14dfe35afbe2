"""What the runtime answers for each kind of task; a new kind is a new file and a line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from export.bundle import Bundle
from export.tasks import classification, translation
from export.texts import Limits

Model = classification.Predictor | translation.Translator

OPEN: Mapping[str, Callable[[Bundle, bytes, bytes, Limits, str, int | None], Model]] = MappingProxyType(
    {"classification": classification.open_predictor, "translation": translation.open_translator}
)
