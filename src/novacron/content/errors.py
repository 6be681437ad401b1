"""Errors of content.

ContentError
└── MalformedContentError   bytes that no encoder of ours writes: damaged, hostile, or of another version
"""

from novacron.core.errors import NovaCronError


class ContentError(NovaCronError):
    """Content could not be worked on."""

    code = "content"


class MalformedContentError(ContentError):
    """Bytes that no encoder of ours writes."""

    code = "content_malformed"
