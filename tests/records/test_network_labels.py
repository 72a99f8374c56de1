"""The words that tell apart the networks of one model in a table."""

from __future__ import annotations

from dataclasses import dataclass

from edgevit.records.network import Network, network_labels


@dataclass(frozen=True)
class Row:
    """A candidate, as far as it names its network."""

    network: Network | None
    network_id: str
    input_shape: tuple[int, ...] = (1, 3, 32, 32)
    model: str = "mine.py:net"


def of(file: str, digest: str, side: int = 32) -> Row:
    return Row(Network("file", file=file, network_sha256=digest), digest, (1, 3, side, side))


def test_one_network_at_two_sizes_needs_no_words() -> None:
    assert network_labels([of("a.pt", "1" * 64), of("a.pt", "2" * 64, 48)]) == {}


def test_where_one_size_has_several_the_other_sizes_have_words_too() -> None:
    labels = network_labels([of("a.pt", "1" * 64), of("b.pt", "2" * 64), of("a.pt", "3" * 64, 48)])
    assert [labels["mine.py:net", digit * 64] for digit in "123"] == ["a.pt", "b.pt", "a.pt"]


def test_two_contents_of_one_file_have_their_digests() -> None:
    labels = network_labels([of("a.pt", "1" * 64), of("a.pt", "2" * 64)])
    assert labels["mine.py:net", "2" * 64] == "a.pt (22222222)"
