"""Refusal reasons: a code for programs and a text for people, for each record that does not enter the database."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

RefusalCode = Literal[
    # of any record
    "malformed", "impossible", "checksum_mismatch", "contradiction", "damaged", "missing_rows",
    # of a published line, by its importer
    "not_a_table_line", "not_a_model_card", "missing_field", "no_device", "no_latency", "no_valid_latency",
    "not_a_number", "not_a_count", "not_positive", "beyond_64_bits", "not_a_time", "no_utc_offset", "out_of_order",
    "contradicts_itself",
    # of a published row, by the screening
    "two_numbers_of_one_run", "faster_than_possible", "another_unit", "doubtful",
]  # fmt: skip
LABELS: dict[RefusalCode, str] = {
    "malformed": "not a record",
    "impossible": "cannot be true",
    "checksum_mismatch": "not what was written",
    "contradiction": "contradicts a stored record",
    "damaged": "damaged",
    "missing_rows": "rows are missing",
    "not_a_table_line": "not a line of the table",
    "not_a_model_card": "no model card",
    "missing_field": "missing field",
    "no_device": "no device",
    "no_latency": "no latency",
    "no_valid_latency": "no valid latency",
    "not_a_number": "not a number",
    "not_a_count": "not a count",
    "not_positive": "not positive",
    "beyond_64_bits": "beyond 64 bits of nanoseconds",
    "not_a_time": "no time",
    "no_utc_offset": "no offset from UTC",
    "out_of_order": "out of order",
    "contradicts_itself": "contradicts itself",
    "two_numbers_of_one_run": "two numbers of one run",
    "faster_than_possible": "faster than possible",
    "another_unit": "another unit",
    "doubtful": "doubtful",
}


@dataclass(frozen=True)
class RefusalReason:
    """The reason for a refusal: a code that programs count and compare, and a text that people read."""

    code: RefusalCode
    text: str
