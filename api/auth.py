"""Who asks: an API key opens one account, and nothing else exists for it."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from api.compose import Services
from api.problems import UnauthorizedError

_BEARER = HTTPBearer(auto_error=False, description="An API key, as `darkroom-admin keys create` prints it.")


async def services_of(request: Request) -> Services:  # awaited: FastAPI would run a plain function in a thread
    """What this process was composed of."""
    services: Services = request.app.state.services
    return services


Door = Annotated[Services, Depends(services_of)]


async def account_of(
    services: Door, credentials: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)]
) -> str:
    """The account that the request's key opens. Raises UnauthorizedError, UnavailableError."""
    if credentials is None:
        raise UnauthorizedError("a key is needed: Authorization: Bearer KEY")
    await services.beginning.done()
    account_id = await services.accounts.authenticate(credentials.credentials)
    if account_id is None:
        raise UnauthorizedError("this key is unknown or revoked")
    return account_id


AccountId = Annotated[str, Depends(account_of)]
