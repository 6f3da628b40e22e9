"""The public schema of assets."""

from datetime import datetime
from typing import Self

from pydantic import BaseModel, Field

from app.assets.records import Kind, StoredAsset
from app.ids import Prefix, encode
from app.web.schema_types import Int32, Int64


class SignedQuery(BaseModel):
    """The query parameters of a signed URL."""

    expires: str | None = Field(default=None, description="Of a signed URL: when it expires, in Unix time.")
    signature: str | None = Field(default=None, description="Of a signed URL: its signature.")


class Deviation(BaseModel):
    """A difference between the video and the request."""

    field: str = Field(description="`seconds` or `size`.", examples=["seconds"])
    requested: float | str = Field(examples=[8])
    actual: float | str = Field(examples=[5.2])


class Asset(BaseModel):
    """A stored file: the video of a job, or its poster."""

    id: str = Field(examples=["ast_01h455vb4pex5vsknk084sn02q"])
    job_id: str = Field(examples=["job_01h455vb4pex5vsknk084sn02q"])
    kind: Kind
    content_type: str = Field(description="Detected from the content of the file.", examples=["video/mp4"])
    size_bytes: Int64
    sha256: str = Field(description="SHA-256 of the file, in hexadecimal; also its ETag.", pattern="^[0-9a-f]{64}$")
    width: Int32 = Field(description="Pixels, as displayed: after rotation, and with square pixels.")
    height: Int32 = Field(description="Pixels, as displayed.")
    codec: str = Field(examples=["h264"])
    seconds: float | None = Field(description="The length in seconds; null for a poster.")
    frame_rate: float | None = Field(description="Frames per second; null for a poster.")
    has_audio: bool
    deviations: list[Deviation] = Field(description="Differences between the video and the request; usually none.")
    created_at: datetime
    expires_at: datetime = Field(description="When the file is deleted. Download it before then.")
    content_url: str = Field(description="URL of the content; needs an API key with `assets:read`.")
    url: str | None = Field(
        default=None, description="URL of the content that needs no API key and expires; only with `?signed=1`."
    )

    @classmethod
    def of(cls, asset: StoredAsset, content_url: str, url: str | None = None) -> Self:
        return cls(
            id=encode(Prefix.ASSET, asset.id),
            job_id=encode(Prefix.JOB, asset.job_id),
            kind=asset.kind,
            content_type=asset.content_type,
            size_bytes=asset.size_bytes,
            sha256=asset.sha256.hex(),
            width=asset.width,
            height=asset.height,
            codec=asset.codec,
            seconds=asset.seconds,
            frame_rate=asset.frame_rate,
            has_audio=asset.has_audio,
            deviations=[Deviation(**deviation) for deviation in asset.deviations],
            created_at=asset.created_at,
            expires_at=asset.expires_at,
            content_url=content_url,
            url=url,
        )
