"""SageMaker's handler service without its web server: reads a request per line, writes a response per line.

Run in the environment of the real packages (make sagemaker), with the module's folder on PYTHONPATH:
python tests/handler.py <model folder>. A request is {"headers": {...}, "body": base64, "batch": whether it belongs to a
batch transform}, a response {"status", "phrase", "type", "body"}.
"""

import base64
import json
import os
import sys

from sagemaker_pytorch_serving_container.handler_service import HandlerService
from ts.context import Context, RequestProcessor


def main(model_dir: str) -> None:
    responses = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the module prints is no response
    service, context = HandlerService(), Context("model", model_dir, {}, 1, None, "0.12.0")
    service.initialize(context)
    for line in sys.stdin:
        request = json.loads(line)
        os.environ["SAGEMAKER_BATCH"] = json.dumps(request["batch"])
        context.request_processor = [RequestProcessor(request["headers"])]
        (body,) = service.handle([{"body": bytearray(base64.b64decode(request["body"]))}], context)
        status, phrase = context.get_response_status(0)
        content_type = context.get_response_content_type(0)
        responses.write(json.dumps({"status": status, "phrase": phrase, "type": content_type, "body": body}) + "\n")
        responses.flush()


if __name__ == "__main__":
    main(sys.argv[1])
