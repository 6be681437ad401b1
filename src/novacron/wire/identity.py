"""Who a process is: a SPIFFE id in its certificate.

    spiffe://<cluster id>/controller
    spiffe://<cluster id>/node/<node id>

The trust domain is the cluster's id, and only that cluster's root may sign names in it.
"""

import re
from dataclasses import dataclass
from typing import Self

from novacron.wire.errors import IdentityError

_FORM = re.compile(r"spiffe://([a-z0-9-]{1,63})/(?:(controller)|(node|user)/([a-z0-9-]{1,63}))")


@dataclass(frozen=True, slots=True)
class SpiffeId:
    """``kind`` is ``controller``, ``node`` or ``user``; ``name`` is empty for a controller."""

    trust_domain: str
    kind: str
    name: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """The id that ``text`` writes; raises IdentityError."""
        match = _FORM.fullmatch(text)
        if match is None:
            raise IdentityError(f"{text[:200]!r} is not the name of a process of NovaCron")
        return cls(match[1], match[2] or match[3], match[4] or "")

    def __str__(self) -> str:
        path = self.kind if self.kind == "controller" else f"{self.kind}/{self.name}"
        return f"spiffe://{self.trust_domain}/{path}"
