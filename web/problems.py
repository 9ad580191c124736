"""Turn errors into answers: what failed, what to do, the request's id, as a page or problem+json (RFC 9457)."""

from __future__ import annotations

import errno
import logging
from http import HTTPStatus
from pathlib import Path
from typing import Literal

from flask import Flask, Response, current_app, g, render_template, request
from pydantic import Field
from werkzeug.exceptions import HTTPException, SecurityError

from coarseloc.core.errors import (
    BackboneError,
    CoarselocError,
    ImageryError,
    InputError,
    LockedError,
    StoreError,
    VectorStoreError,
    WeightsError,
)
from coarseloc.i18n import DEFAULT
from coarseloc.i18n.messages import message_translator
from web.language import _
from web.models import AnswerModel, json_response

log = logging.getLogger(__name__)

_STATUS: dict[type[CoarselocError], int] = {
    ImageryError: 415,
    InputError: 400,
    BackboneError: 400,
    LockedError: 503,
    VectorStoreError: 503,
    WeightsError: 503,
    StoreError: 503,
}


class Problem(Exception):
    """A request that cannot be answered: its status, what failed, and what to do about it."""

    def __init__(self, status: int, detail: str, *, title: str | None = None, retry_after_s: int | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.title, self.retry_after_s = status, detail, title, retry_after_s


class ProblemDetails(AnswerModel):
    """Why a request was not answered, and what to do (RFC 9457)."""

    type: Literal["about:blank"]
    title: str
    status: int = Field(ge=400, le=599)
    detail: str
    request_id: str = Field(description="names the request in the server's log")


def register(app: Flask) -> None:
    app.register_error_handler(Problem, _respond)
    app.register_error_handler(CoarselocError, _respond_to_error)
    app.register_error_handler(SecurityError, _refuse_host)
    app.register_error_handler(HTTPException, _respond_to_http)
    app.register_error_handler(Exception, _respond_to_defect)


def wants_json() -> bool:
    """Programs get problem+json: those that ask for a .json address, and those that do not ask for HTML."""
    return request.path.endswith(".json") or not accepts_html()


def accepts_html() -> bool:
    """Browsers do, for pages; `*/*` alone is a program that takes what it gets."""
    return any(media.lower() in ("text/html", "application/xhtml+xml") for media in request.accept_mimetypes.values())


def _respond(problem: Problem) -> Response:
    if wants_json():
        response = _as_json(problem)
    else:
        page = render_template("problem.html", problem=_details(problem))
        response = Response(page, problem.status, content_type="text/html; charset=utf-8")
    if problem.retry_after_s is not None:
        response.headers["Retry-After"] = str(problem.retry_after_s)
    return response


def _as_json(problem: Problem) -> Response:
    response = json_response(_details(problem))
    response.status_code, response.content_type = problem.status, "application/problem+json"
    return response


def _details(problem: Problem) -> ProblemDetails:
    return ProblemDetails(
        type="about:blank",
        title=problem.title or HTTPStatus(problem.status).phrase,
        status=problem.status,
        detail=problem.detail,
        request_id=g.get("request_id", ""),
    )


def without_folders(text: str) -> str:
    """A text without where on this server the data and the weights lie."""
    settings = current_app.extensions["coarseloc"].settings
    names = {str(settings.weights): "WEIGHTS", str(settings.data_dir): "DATA", str(Path.home()): "~"}
    for folder, name in names.items():
        text = text.replace(folder, name)
    return text


def error_text(error: CoarselocError) -> str:
    """What an error says, in the reader's language, without this server's folders."""
    return without_folders(message_translator(g.get("language", DEFAULT))(str(error)))


def _is_disk_full(error: BaseException | None) -> bool:
    """Whether an error, or what it came from, is that of a full disk."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return True
        if any(words in str(error) for words in ("disk is full", "No space left", "MiB left")):
            return True
        error = error.__cause__
    return False


def _respond_to_error(error: CoarselocError) -> Response:
    status = next((code for kind, code in _STATUS.items() if isinstance(error, kind)), 500)
    status = 507 if _is_disk_full(error) else status
    log.warning("%s %s (request %s): %s", request.method, request.path, g.get("request_id"), error)
    return _respond(Problem(status, error_text(error), title=_title(status) if status >= 500 else None))


def _refuse_host(error: SecurityError) -> Response:
    """A Host header that is not ours. No page: its links would need the address that was refused."""
    return _as_json(
        Problem(
            400,
            f"{error.description} Use the address that the server printed at its start, "
            "or name this one in COARSELOC_TRUSTED_HOSTS.",
        )
    )


def _respond_to_http(error: HTTPException) -> Response:
    status = error.code or 500
    if status < 400:  # a redirect, raised by the router
        response: Response = error.get_response(request.environ)  # type: ignore[assignment]
        return response
    return _respond(Problem(status, _detail(status) or error.description or "", title=_title(status)))


def _respond_to_defect(error: Exception) -> Response:
    if _is_disk_full(error):
        log.error("%s %s (request %s): %s", request.method, request.path, g.get("request_id"), error)
        return _respond(Problem(507, _detail(507), title=_title(507)))
    log.exception("%s %s failed (request %s)", request.method, request.path, g.get("request_id"), exc_info=error)
    return _respond(Problem(500, _detail(500), title=_title(500)))


def _title(status: int) -> str | None:
    titles = {
        400: _("This request cannot be read"),
        403: _("This request is not allowed"),
        404: _("There is nothing here"),
        405: _("This page does not take that"),
        413: _("This file is too large"),
        500: _("Something broke on our side"),
        503: _("This cannot be answered now"),
        507: _("The server's disk is full"),
    }
    return titles.get(status)


def _detail(status: int) -> str:
    details = {
        404: _("The address does not name a flight, frame or picture that is known. Go back to the flights."),
        405: _("The address is right, but this kind of request is not answered here."),
        507: _("Nothing was lost. Room must be made in the data folder; then try again."),
        413: _("Send an image of at most {n} MB.", n=(request.max_content_length or 0) // 1_000_000),
        500: _("The request failed, and the log of the server says why. Search it for the request id below."),
    }
    return details.get(status, "")
