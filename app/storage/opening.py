"""The stores that the settings name."""

from sqlalchemy.orm import Session, sessionmaker

from app.settings import Settings, SettingsError
from app.storage.artefacts import ArtefactStore, LocalArtefactStore
from app.storage.blobs import BlobStore
from app.storage.local import LocalBlobStore
from app.storage.register import register_in


def open_stores(settings: Settings, sessions: sessionmaker[Session]) -> tuple[BlobStore, ArtefactStore]:
    """Blobs and artefacts; neither the database nor a bucket is connected to before the first request.

    Raises:
        SettingsError: the store lies in a bucket, and the client library for it is not installed.
    """
    register = register_in(sessions)
    if settings.bucket_url is None:
        return LocalBlobStore(settings.store_dir, register=register), LocalArtefactStore(settings.store_dir)
    try:
        from app.storage.bucket import Bucket
        from app.storage.cache import BlobCache
        from app.storage.s3 import S3ArtefactStore, S3BlobStore
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"STREAMLINE_STORE_URL is a bucket, which needs the package {error.name}; pip install '.[s3]'."
        ) from None
    bucket = Bucket(settings.bucket_url, endpoint_url=settings.s3_endpoint_url)
    cache = BlobCache(settings.cache_dir / "blobs", budget_bytes=settings.store_cache_bytes)
    blobs = S3BlobStore(
        bucket,
        cache,
        settings.store_dir / "staging",
        register=register,
        presigned_seconds=settings.s3_presigned_seconds,
    )
    return blobs, S3ArtefactStore(bucket, cache)
