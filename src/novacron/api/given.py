"""What a handler is given, and where each part comes from."""

from typing import Any

from litestar import Request, Response
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody

from novacron.control.controller import Controller

ServedController = NamedDependency[Controller]
Asked = Request[Any, Any, Any]
Answer = Response[dict[str, Any]]
Named = FromPath[str]  # a name or an id in the path

__all__ = ["Answer", "Asked", "FromQuery", "JSONBody", "Named", "ServedController"]
