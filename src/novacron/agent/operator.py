"""What a node's operator has given it beside the machine: programs of his own, and the names that they are told."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final


@dataclass(frozen=True, slots=True)
class Operator:
    """Folders of programs (``agent.programs``); None: there are none."""

    probes_dir: Path | None = None
    hooks_dir: Path | None = None
    hook_timeout_s: float = 10.0
    node: str = ""  # names, as people know them
    cluster: str = ""

    @property
    def place(self) -> str:
        """The node, as a migration's target is written."""
        return f"{self.cluster}/{self.node}"

    @property
    def facts(self) -> dict[str, str]:
        """For every program."""
        return {"NODE": self.node, "CLUSTER": self.cluster}


NOBODY: Final = Operator()
