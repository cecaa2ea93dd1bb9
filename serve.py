"""Classify photographs over HTTP: a page at / for people, POST /invocations for programs, as on SageMaker.

SM_CHANNEL_MODEL=<folder of runs> NAME=resnet18 python serve.py
curl --data-binary @face.jpg -H 'Content-Type: image/jpeg' http://127.0.0.1:8080/invocations

GET /ping answers 200 once the net is loaded and warm; /metrics has counts for Prometheus. After Ctrl-C or SIGTERM the
server answers the requests that it has received, and ends. SageMaker starts containers with the argument `serve`.
"""

if __name__ == "__main__":  # Ctrl-C during these imports ends the script without a traceback; later, console.run does
    import signal

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)

import asyncio

import model
from toolkit.config import extras, settings, sources
from toolkit.serving.endpoint import Endpoint
from toolkit.system import console, ports
from toolkit.system.console import listed, say


def main(argv: list[str]) -> None:
    config, _ = sources.read(settings.ServerSettings, argv[1:] if argv[:1] == ["serve"] else argv)
    extras.need("serve.py", "starlette", "uvicorn")
    with ports.bound(config.serve_host, config.serve_port) as listening:
        serve(config, Endpoint.warm(config, model.load), listening)


def serve(config: settings.ServerSettings, endpoint: Endpoint, listening) -> None:
    """Answer requests at the socket `listening` until a signal comes."""
    from toolkit.pages import serve as page
    from toolkit.serving import web
    from toolkit.serving.batcher import Batcher
    from toolkit.serving.counters import Counters
    from toolkit.serving.nets import Nets

    counts, names = Counters(), [run.name for run in endpoint.ensemble.headers]
    with Batcher(endpoint.answer, config.serve_batch, config.serve_wait_ms / 1000, counts) as batcher:
        listening.listen()
        say(f"serving {listed(names)} at {ports.address(listening)}; Ctrl-C ends it")
        nets = Nets(endpoint, lambda photograph: asyncio.wrap_future(batcher.submit(photograph)))
        web.serve(web.Service(nets, counts, page.render_page(names)), listening)
    say(f"answered {counts.photographs:,} photographs in {counts.batches:,} batches")


if __name__ == "__main__":
    console.run(main)
