"""The page of the demo's cache nodes, and the endpoint that tells the shops of them: one process for both.

On the page nodes are killed, started again, added and taken away; so they are by
`curl -X POST http://127.0.0.1:8002/nodes/2/kill`.
"""

import os
import threading
from pathlib import Path
from typing import Any

from flask import Flask, Response, abort, jsonify, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from werkzeug.serving import make_server

from .discovery import HOST, Endpoint
from .house import GUARD
from .nodes import NUMBERS, Node, Nodes, Refused, State, copies
from .stores import LOOK_EVERY


def create_app(nodes: Nodes) -> Flask:
    app = Flask(__name__)
    app.config["TRUSTED_HOSTS"] = [HOST, "localhost"]

    @app.before_request
    def check_forms() -> None:
        # Nobody is signed in here, so there is no session to hold a token: another site is known by what browsers say.
        if request.method == "POST" and request.headers.get("Sec-Fetch-Site", "none") not in (
            "none",
            "same-origin",
        ):
            abort(403)

    @app.after_request
    def guard(response: Response) -> Response:
        response.headers.update(GUARD)
        return response

    @app.get("/")
    def show() -> str:
        return render_template("nodes.html", **now(), handle=request.args.get("session"))

    @app.get("/nodes.json")
    def tell() -> Response:
        seen = now()
        return jsonify(
            version=seen["version"],
            nodes=[told(node) for node in seen["nodes"]],
            alone=seen["copies"][1],
            twice=seen["copies"][2],
        )

    @app.post("/nodes/<int:number>/<verb>")
    @app.post("/nodes/<verb>")
    def do(verb: str, number: int = 0) -> ResponseReturnValue:
        verbs = {"kill": nodes.kill, "start": nodes.start, "remove": nodes.remove}
        try:
            if (verb, number) == ("add", 0):
                nodes.add()
            elif verb in verbs and number in NUMBERS:
                verbs[verb](number)
            else:
                abort(404)
        except Refused as reason:
            return str(reason), 409, {"Content-Type": "text/plain"}
        return redirect(url_for("show", session=request.args.get("session")), 303)

    @app.get("/healthz")
    def healthz() -> str:
        return "ok"

    def now() -> dict[str, Any]:
        seen = nodes.look()
        return {
            "nodes": [node for node in seen if node.state is not State.SPARE],
            "spare": any(node.state is State.SPARE for node in seen),
            "copies": copies(seen),
            "version": nodes.listing.version,
            "look_every": LOOK_EVERY,
            "State": State,
        }

    return app


def told(node: Node) -> dict[str, Any]:
    return {
        "number": node.number,
        "port": node.port,
        "state": node.state,
        "pid": node.pid,
        "sessions": len(node.sessions),
        "others": node.others,
    }


def main() -> None:
    ports = int(os.environ["DEMO_PORTS"]) * 100
    nodes = Nodes(Path(os.environ["DEMO_DIR"]), ports + 20)
    endpoint = Endpoint(ports, nodes.listing)
    threading.Thread(target=endpoint.serve_forever, daemon=True).start()
    make_server(HOST, int(os.environ["DEMO_CACHE_PORT"]), create_app(nodes), threaded=True).serve_forever()


if __name__ == "__main__":
    main()
