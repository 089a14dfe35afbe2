"""What the runtime answers for each kind of task; a new kind is a new file and a line here."""

from __future__ import annotations

from types import MappingProxyType

from export.tasks import classification

PREDICTIONS = MappingProxyType({"classification": classification.predictions})
PROBABILITIES = MappingProxyType({"classification": classification.probabilities})
