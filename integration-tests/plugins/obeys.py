"""Runs whatever the request says, and answers with what became of it."""

import json


def process_request(influxdb3_local, query_parameters, request_headers, request_body, args=None):
    """Run the program in the body."""
    names = {"local": influxdb3_local, "tried": tried, "result": None}
    exec(request_body, names)  # noqa: S102 - that is what it is for
    return {"result": json.loads(json.dumps(names["result"], default=repr))}


def tried(call, *arguments):
    """Return "ok", or what was raised."""
    try:
        call(*arguments)
    except BaseException as error:
        return type(error).__name__
    return "ok"
