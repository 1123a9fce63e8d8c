# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The application and its pages: ``gunicorn -k uvicorn_worker.UvicornWorker notes.main:app``."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated

import sqlalchemy as sa
from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel
from sqlalchemy.exc import OperationalError

from . import config
from .behaviour import Behaviour
from .models import Note, Session, engine

NEWEST_NOTES = 50

behaviour = Behaviour()
version = behaviour.version(config.deployed_version())


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    behaviour.start()
    yield
    engine.dispose()


app = FastAPI(title="notes", version=version, lifespan=lifespan)


@app.middleware("http")
async def behave(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    behaviour.request()
    response = await call_next(request)
    response.headers["X-App-Version"] = version
    return response


@app.exception_handler(Exception)
def broken(_request: Request, _error: Exception) -> JSONResponse:
    # Answers outside the middleware, hence the header here.
    return JSONResponse({"error": "Internal Server Error"}, status_code=500, headers={"X-App-Version": version})


@app.exception_handler(OperationalError)
def database_failed(_request: Request, _error: OperationalError) -> JSONResponse:
    return JSONResponse({"error": "The database does not answer, or has not been migrated."}, status_code=503)


@app.get("/")
def index() -> dict[str, str]:
    return {"greeting": behaviour.greeting, "version": version}


@app.get(behaviour.health_path)
def health(response: Response) -> dict[str, object]:
    database = database_state()
    reachable = database != "unreachable"
    response.status_code = 200 if reachable else 503
    return {
        "status": "ok" if reachable else "error",
        "version": version,
        "release": os.environ.get("APP_RELEASE"),
        "database": database,
        "pid": os.getpid(),
    }


def database_state() -> str:
    try:
        return "ready" if sa.inspect(engine).has_table(Note.__tablename__) else "empty"
    except OperationalError:
        return "unreachable"


@app.get("/slow")
async def slow(seconds: Annotated[float, Query(ge=0, le=5)] = 0.5) -> dict[str, float]:
    await asyncio.sleep(seconds)
    return {"slept": seconds}


@app.post("/echo")
async def echo(request: Request) -> Response:
    return Response(await request.body(), media_type=request.headers.get("content-type", "application/octet-stream"))


@app.get("/stream")
async def stream() -> StreamingResponse:
    async def chunks() -> AsyncIterator[str]:
        for number in range(10):
            yield f"chunk {number}\n"
            await asyncio.sleep(0.1)

    return StreamingResponse(chunks(), media_type="text/plain")


class NewNote(BaseModel):
    text: str


@app.post("/notes", status_code=201)
def write_note(new: NewNote) -> dict[str, object]:
    with Session.begin() as session:
        note = Note(text=new.text)
        session.add(note)
        session.flush()
        return {"id": note.id, "text": note.text}


@app.get("/notes")
def list_notes() -> dict[str, object]:
    with Session() as session:
        newest = session.scalars(sa.select(Note).order_by(Note.id.desc()).limit(NEWEST_NOTES))
        return {
            "count": session.scalar(sa.select(sa.func.count(Note.id))),
            "newest": [{"id": note.id, "text": note.text} for note in newest],
        }
