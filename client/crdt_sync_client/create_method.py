"""`Device.create(path, name=…)` makes a device, `device.create(type, values)` a record of it.

One name for both, so that each reads as what it does; what is found depends on whether it is looked up on
the class or on a device.
"""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Protocol, overload

if TYPE_CHECKING:
    from .device import Device
    from .records import WriteResult
    from .store_opening import StorePath

Changes = Mapping[Any, Any]
"""Fields and their new values, by name, dotted path or tuple.

The keys are `Any` because mappings are invariant in them: an app's `dict[str, Any]` would not pass as a
`Mapping[str | tuple[str, ...], Any]`. A key that is no field is refused when it is written.
"""


class CreateDevice(Protocol):
    def __call__(
        self, path: StorePath, *, name: str, passphrase: str | None = None, key: bytes | None = None
    ) -> Coroutine[Any, Any, Device]: ...


class CreateRecord(Protocol):
    def __call__(
        self,
        type: str,
        values: Changes,
        *,
        id: str | None = None,
        space: str | None = None,
        priority: int | None = None,
    ) -> Coroutine[Any, Any, WriteResult]: ...


class CreateMethod:
    """See the module."""

    @overload
    def __get__(self, device: None, kind: type[Device]) -> CreateDevice: ...
    @overload
    def __get__(self, device: Device, kind: type[Device]) -> CreateRecord: ...
    def __get__(self, device: Device | None, kind: type[Device]) -> CreateDevice | CreateRecord:
        return kind._create_device if device is None else device._create_record
