"""What is done with the files of shards: all in which captioning images and tagging videos differ.

Which shards there are, how each is published, what is finished and who does the work is the same
for both.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Generator, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from captioner.files.escaping import encode_text
from captioner.files.finding import SourceFile

if TYPE_CHECKING:
    from captioner.model.caption_model import CaptionModel
    from captioner.shards.tasks import ShardTask


FORMATS = ("jsonl", "parquet", "tar")
"""Of the outputs; `captioner.shards.formats` writes them."""

VIDEO_FORMATS = FORMATS[:2]
"""Of those with records of videos."""


class Done(NamedTuple):
    """One file of a shard, when it is done.

    Attributes:
        record: what the shard's output says of it, JSON primitives.
        status: what became of it, for the counts: ``ok``, ``failed`` and others.
        file: it.
    """

    record: dict[str, Any]
    status: str
    file: SourceFile


class Work(ABC):
    """One kind of work. It can be pickled, and loads no torch before it is done.

    Attributes:
        noun: what its files are called.
        done: what they are afterwards.
        command: of the command line.
        kinds: of shards that it can read, of `captioner.shards.tasks`.
        columns: of lists, of which the first that there is has the paths or addresses.
        formats: of its outputs, keys of `captioner.shards.formats.FORMATS`.
    """

    noun: ClassVar[str]
    done: ClassVar[str]
    command: ClassVar[str]
    kinds: ClassVar[frozenset[str]]
    columns: ClassVar[tuple[str, ...]]
    formats: ClassVar[tuple[str, ...]]

    @property
    @abstractmethod
    def paths(self) -> tuple[str, ...]:
        """The inputs, all of one kind; see `captioner.shards.inputs.kind_of`."""

    @abstractmethod
    def find(self) -> Iterator[SourceFile]:
        """The files, lazily, where the inputs are files, folders and patterns of this machine.

        Raises:
            CaptionerError: a path leads to nothing.
        """

    @abstractmethod
    def suffixes(self, path: str) -> Collection[str]:
        """The suffixes of the files that an address, a folder or a pattern, stands for."""

    @abstractmethod
    def describe_search(self) -> dict[str, Any]:
        """What else decides which files `find` gives, JSON primitives."""

    @abstractmethod
    def check(self, model: CaptionModel) -> None:
        """Refuse options that do not suit the model.

        Raises:
            CaptionerError: names the option and the remedy.
        """

    @abstractmethod
    def describe(self, model: CaptionModel) -> dict[str, Any]:
        """What decides about the records beside the model, JSON primitives."""

    @abstractmethod
    def records(self, task: ShardTask, model: CaptionModel) -> Generator[Done, None, None]:
        """Do a shard's files, lazily, in their order; they depend on task and model alone.

        Raises:
            CaptionerError: the shard cannot be read.
            captioner.files.stores.StoreUnreachable: a store does not answer.
        """

    @abstractmethod
    def schema(self, model: CaptionModel) -> Any:
        """The columns of a table of its records, a ``pyarrow.Schema``."""

    @abstractmethod
    def row(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """A record by these columns."""


def as_text(value: object) -> object:
    """A text as JSONL has it, where what no encoding holds is escaped; anything else as it is."""
    return encode_text(value).decode() if isinstance(value, str) else value
