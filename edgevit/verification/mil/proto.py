"""A reader of the protocol buffer wire format, https://protobuf.dev/programming-guides/encoding/.

coremltools has generated classes for Core ML's messages. Importing them costs each process 6 s. A second
implementation also checks independently what coremltools wrote.
"""

from __future__ import annotations

_VARINT, _EIGHT_BYTES, _FOUR_BYTES = 0, 1, 5  # wire types; every other one begins with its length


class Message:
    """The fields of one protocol buffer message, by field number.

    An absent field reads as empty: 0, "" or an empty message.
    """

    def __init__(self, data: memoryview) -> None:
        self._fields: dict[int, list[int | memoryview]] = {}
        offset = 0
        while offset < len(data):
            key, offset = _varint(data, offset)
            value, offset = _field_value(data, offset, wire_type=key & 7)
            self._fields.setdefault(key >> 3, []).append(value)

    def has(self, number: int) -> bool:
        """Return whether the field is present."""
        return number in self._fields

    def raw(self, number: int) -> memoryview:
        """Return the bytes of a field; the parts of a repeated field are joined."""
        return memoryview(b"".join(self._parts(number)))

    def texts(self, number: int) -> list[str]:
        """Return a repeated string."""
        return [bytes(part).decode() for part in self._parts(number)]

    def text(self, number: int) -> str:
        """Return a string."""
        return "".join(self.texts(number)[-1:])

    def numbers(self, number: int) -> list[int]:
        """Return a repeated signed integer, packed or not."""
        values = [value for value in self._fields.get(number, []) if isinstance(value, int)]
        packed, offset = self.raw(number), 0
        while offset < len(packed):
            value, offset = _varint(packed, offset)
            values.append(value)
        return [value - (1 << 64) if value >> 63 else value for value in values]

    def number(self, number: int) -> int:
        """Return an integer."""
        return ([0, *self.numbers(number)])[-1]

    def all(self, number: int) -> list[Message]:
        """Return a repeated message."""
        return [Message(part) for part in self._parts(number)]

    def one(self, number: int) -> Message:
        """Return a message."""
        return ([Message(memoryview(b"")), *self.all(number)])[-1]

    def entries(self, number: int) -> dict[str, Message]:
        """Return a map from strings to messages."""
        return {entry.text(1): entry.one(2) for entry in self.all(number)}

    def _parts(self, number: int) -> list[memoryview]:
        return [value for value in self._fields.get(number, []) if isinstance(value, memoryview)]


def _field_value(data: memoryview, offset: int, wire_type: int) -> tuple[int | memoryview, int]:
    if wire_type == _VARINT:
        return _varint(data, offset)
    size = {_EIGHT_BYTES: 8, _FOUR_BYTES: 4}.get(wire_type, -1)
    if size < 0:
        size, offset = _varint(data, offset)
    return data[offset : offset + size], offset + size


def _varint(data: memoryview, offset: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[offset]
        value, shift, offset = value | (byte & 127) << shift, shift + 7, offset + 1
        if byte < 128:
            return value, offset
