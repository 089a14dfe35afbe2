"""Several processes that train one model (torchrun, accelerate launch): what they have to agree on."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object, reduce

Value = TypeVar("Value")
PATIENCE = timedelta(days=7)
"""How long the others wait while the first process labels or measures; torch's default is half an hour."""


def join() -> bool:
    """Meet the other processes, if there are any; whether this is the first one."""
    return bool(PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE).is_main_process)


def leave() -> None:
    """Part from the others when all is done: a thread that still listens to them can end this process with SIGABRT."""
    PartialState().destroy_process_group()


def is_first() -> bool:
    """Whether this is the first process, or the only one."""
    return bool(PartialState().is_main_process)


def count() -> int:
    """How many processes there are."""
    return int(PartialState().num_processes)


def place() -> int:
    """Which of them this is, counted from 0."""
    return int(PartialState().process_index)


def gathered(own: list[Value]) -> list[Value]:
    """What all processes have, in their order."""
    return own if count() == 1 else list(gather_object(own))


def wait() -> None:
    """Wait until every process has come here."""
    PartialState().wait_for_everyone()


def from_first(make: Callable[[], Value]) -> Value:
    """What the first process makes, told to all."""
    if PartialState().num_processes == 1:
        return make()
    found: list[Any] = [make() if is_first() else None]
    broadcast_object_list(found)
    return cast(Value, found[0])


def anyone(flag: bool) -> bool:
    """Whether any process says yes; all get the same answer."""
    state = PartialState()
    if state.num_processes == 1:
        return flag
    return bool(reduce(torch.tensor([float(flag)], device=state.device), "sum").item())
