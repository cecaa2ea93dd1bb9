"""serve.py on many cores and machines: Ray Serve adds replicas of the nets under load, and replaces those that die.

SM_CHANNEL_MODEL=<folder of runs> NAME=resnet18 python deployment.py
SM_CHANNEL_MODEL=<folder of runs> NAME=resnet18 serve run deployment:app

The first command starts Ray on this machine, the second uses a running cluster. Settings, addresses, requests and
answers are those of serve.py. Each replica takes a core, and gathers its own batches.
"""

if __name__ == "__main__":  # Ctrl-C during these imports ends the script without a traceback; later, console.run does
    import signal

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)

import asyncio
import math
import os
import time

import model
from toolkit.config import extras, settings, sources
from toolkit.serving import batcher, model_archive, nets
from toolkit.serving.endpoint import Endpoint
from toolkit.serving.ensemble import Ensemble
from toolkit.system import console

RETRY_SECONDS = 0.1
MOST_TRIES = 3  # of a request whose replicas die: the request itself may be the cause
FRESH_SECONDS = 10.0  # an answer that is not older shows that a replica is alive


def main(argv: list[str], **autoscaling) -> None:
    """Serve until Ctrl-C. `autoscaling`: entries of Ray's autoscaling_config, such as min_replicas."""
    config = read(argv)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would report its use to its makers
    import ray
    from ray import serve

    ray.init(include_dashboard=False)
    serve.start(http_options={"host": config.serve_host, "port": config.serve_port})
    try:
        serve.run(application(config, **autoscaling), blocking=True)
    finally:
        serve.shutdown()


def app(arguments: dict[str, str]):
    """The application for Ray's own commands, with settings from their arguments and from the environment."""
    return application(read(sources.as_flags(arguments)))


def read(argv: list[str]) -> settings.ServerSettings:
    """The settings. Raises InputError on wrong ones, and without Ray."""
    config, _ = sources.read(settings.ServerSettings, argv)
    extras.need("deployment.py", "ray.serve")
    return config.model_copy(update={"sm_channel_model": config.sm_channel_model.absolute()})


def application(config: settings.ServerSettings, **autoscaling):
    """The application of Ray Serve. Raises InputError where NAME selects no run."""
    from ray import serve

    from toolkit.pages.serve import render_page

    with model_archive.unpacked(config.sm_channel_model) as runs:
        names = [run.name for run in Ensemble.find(config, runs, model.load).headers]
    replicas = serve.deployment(
        Nets, num_replicas="auto",
        autoscaling_config={"target_ongoing_requests": config.serve_batch, **autoscaling},
        max_ongoing_requests=2 * config.serve_batch,  # while a batch is predicted, the next one gathers
    )  # fmt: skip
    front = serve.deployment(serve.ingress()(Front), ray_actor_options={"num_cpus": 0}, max_ongoing_requests=1000)
    return front.bind(replicas.bind(config), config.max_megapixels, render_page(names))


class Nets(nets.Nets):
    """A replica: a process that has the nets, and predicts batches that Ray Serve gathers."""

    def __init__(self, config: settings.ServerSettings):
        from ray import serve

        endpoint = Endpoint.warm(config, model.load)

        @serve.batch(max_batch_size=config.serve_batch, batch_wait_timeout_s=config.serve_wait_ms / 1000)
        async def predict_together(photographs: list) -> list:
            return await asyncio.to_thread(batcher.answer_each, endpoint.answer, photographs)

        async def predict(photograph) -> dict:
            record = await predict_together(photograph)
            if isinstance(record, Exception):
                raise record
            return record

        super().__init__(endpoint, predict)

    check_health = nets.Nets.check  # Ray replaces a replica whose check raises


class Front:
    """Takes HTTP requests and asks a replica; if it dies, another one, as all give the same answer."""

    def __init__(self, replicas, max_megapixels: float, page: str):
        self.replicas, self.max_megapixels, self.page = replicas, max_megapixels, page
        self.answered = -math.inf  # time.monotonic() of the last answer by a replica

    def __serve_build_asgi_app__(self):
        from toolkit.serving import counters, web

        return web.Service(self, counters.Counters(predicts=False), self.page).application()

    async def record(self, content) -> dict:
        return await self._ask(self.replicas.record, content)

    async def check(self) -> None:
        """Raises an error if nothing can be predicted. After a recent answer no replica is asked, so nobody waits."""
        if time.monotonic() - self.answered > FRESH_SECONDS:
            await self._ask(self.replicas.check)

    async def _ask(self, method, *arguments):
        from ray.exceptions import RayActorError, RayTaskError

        from toolkit.serving import web

        for tries_left in reversed(range(MOST_TRIES)):
            try:
                found = await method.remote(*arguments)
                self.answered = time.monotonic()
                return found
            except RayActorError as error:
                if not tries_left:
                    raise web.BusyError("the processes that predicted this request died; send it again") from error
                await asyncio.sleep(RETRY_SECONDS)
            except RayTaskError as error:
                raise error.cause from None


if __name__ == "__main__":
    console.run(main)
