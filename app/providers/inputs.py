"""The inputs of a job: the files that a provider gets beside the prompt.

An input is given as a file, or as a URL that becomes one before anything is submitted. What is sent may be another
file: the same picture upright, without what a camera wrote into it, and of the size that the model takes.
"""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Self
from uuid import UUID

from app.connection_settings import InputRole
from app.media.info import FileFormat

__all__ = ["FrameUse", "InputFile", "InputRole", "InputWay", "JobInput", "ProviderInput", "prepared"]


class InputWay(StrEnum):
    """How an input reaches a provider."""

    BYTES = "bytes"  # in the body of the create, as they are
    DATA_URL = "data_url"  # in the body of the create, in base64
    PUBLIC_URL = "public_url"  # fetched from this gateway, by a signed URL


class FrameUse(StrEnum):
    """What an input takes of the video of another job."""

    FIRST_FRAME = "first_frame"
    LAST_FRAME = "last_frame"


@dataclass(frozen=True, slots=True)
class InputFile:
    """A stored file. ``sha256`` is in hexadecimal; ``width`` and ``height`` are pixels, as displayed."""

    id: UUID
    format: FileFormat
    size_bytes: int
    sha256: str
    width: int | None
    height: int | None
    object_key: str

    def stored(self) -> dict[str, Any]:
        """As JSON values."""
        return {**asdict(self), "id": str(self.id), "format": self.format.value}

    @classmethod
    def restored(cls, values: Mapping[str, Any]) -> Self:
        """From :meth:`stored`."""
        return cls(**{**values, "id": UUID(values["id"]), "format": FileFormat(values["format"])})


@dataclass(frozen=True, slots=True)
class JobInput:
    """One input of a job.

    ``file`` is what was given, what ``url`` delivered, or a frame of the video of ``job_id``: None until it was
    fetched. ``sent`` is what the provider gets: None until it was prepared. ``adjust`` allows to change the picture so
    that it fits. ``tries`` counts fetches of ``url``.
    """

    role: InputRole
    file: InputFile | None = None
    url: str | None = None
    job_id: UUID | None = None
    use: FrameUse | None = None
    adjust: bool = False
    sent: InputFile | None = None
    tries: int = 0

    def stored(self) -> dict[str, Any]:
        """As JSON values."""
        files = {"file": self.file, "sent": self.sent}
        return {
            "role": self.role.value,
            "url": self.url,
            "job_id": None if self.job_id is None else str(self.job_id),
            "use": self.use,
            "adjust": self.adjust,
            "tries": self.tries,
            **{name: None if file is None else file.stored() for name, file in files.items()},
        }

    @classmethod
    def restored(cls, values: Mapping[str, Any]) -> Self:
        """From :meth:`stored`."""
        files = {name: values[name] and InputFile.restored(values[name]) for name in ("file", "sent")}
        job_id, use = values.get("job_id"), values.get("use")
        source = {"job_id": job_id and UUID(job_id), "use": use and FrameUse(use)}
        return cls(**{**values, **files, **source, "role": InputRole(values["role"])})


@dataclass(frozen=True, slots=True)
class ProviderInput:
    """An input as an adapter gets it: ``url`` or ``data``, by the way that the engine has chosen among its traits'."""

    role: InputRole
    file: InputFile
    way: InputWay | None = None
    url: str | None = None
    data: bytes | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """A file name, for providers that want one."""
        return f"{self.role}.{self.file.format}"

    @property
    def reference(self) -> str:
        """The URL or the data URL, for providers that take either."""
        return self.url if self.url is not None else data_url(self.file.format.content_type, self.data or b"")


def data_url(content_type: str, data: bytes) -> str:
    return f"data:{content_type};base64,{b64encode(data).decode()}"


def prepared(inputs: Sequence[JobInput]) -> tuple[ProviderInput, ...]:
    """The inputs that are ready to be sent; all of a job that is past its preparation."""
    return tuple(ProviderInput(one.role, one.sent) for one in inputs if one.sent is not None)


def size_of_frame(inputs: Sequence[JobInput]) -> tuple[int, int] | None:
    """The pixels of the picture that the video begins or ends with; None if there is none, or it is not known yet."""
    for role in (InputRole.FIRST_FRAME, InputRole.LAST_FRAME):
        for one in inputs:
            if one.role is role and one.file is not None and one.file.width and one.file.height:
                return one.file.width, one.file.height
    return None
