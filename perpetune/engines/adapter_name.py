"""The name by which an engine knows a release's adapter."""

from __future__ import annotations

import hashlib
import re

from perpetune.model.release import Release


def adapter_name(release: Release) -> str:
    """A name made of the adapter's digest: under a reused name an engine may serve cached results of other weights."""
    digest = hashlib.sha256()
    for file in sorted(path for path in release.adapter.rglob("*") if path.is_file()):
        digest.update(file.relative_to(release.adapter).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return f"v{re.sub('[^A-Za-z0-9]', '-', release.version)}-{digest.hexdigest()[:16]}"
