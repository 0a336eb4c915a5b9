"""What the home folder keeps so as not to compute or ask it again: replies of a larger model, and embeddings."""

from __future__ import annotations

from pathlib import Path

from perpetune.erasure.selection import Targets
from perpetune.quality.embedding_cache import embedding_caches
from perpetune.quality.features import FOLDER as EMBEDDINGS
from perpetune.rules.replies import REPLIES, reply_cache


def forget_replies(home: Path, targets: Targets, *, dry_run: bool) -> int:
    """Delete the replies about erased rows, and those of which it is not known what rows they are about."""
    path = home / REPLIES
    if not path.is_file():
        return 0
    with reply_cache(path) as cache:
        count = cache.count_of(targets.hashes)
        if count and not dry_run:
            cache.forget(targets.hashes)
    return count


def forget_embeddings(home: Path, targets: Targets, *, dry_run: bool) -> int:
    """Delete the embeddings of the rows' inputs."""
    inputs = {row.input for row in targets.found.values()}
    caches = embedding_caches(home / EMBEDDINGS)
    return sum(cache.count_of(inputs) if dry_run else cache.forget(inputs) for cache in caches)
