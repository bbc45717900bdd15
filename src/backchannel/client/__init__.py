"""A client of the decision service: repeated requests count once, and feedback waits in a queue if it must."""

from backchannel.client.client import AsyncClient, Client
from backchannel.client.core import Heard, RefusedError, UnavailableError
from backchannel.client.queue import ClientError, Queue, Refused

__all__ = ["AsyncClient", "Client", "ClientError", "Heard", "Queue", "Refused", "RefusedError", "UnavailableError"]
