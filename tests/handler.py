"""SageMaker's handler service without the web server around it: a request a line comes in, an answer a line goes out.

Run in the environment of the real packages (make sagemaker), with the module's folder on PYTHONPATH:
python tests/handler.py <model folder>. A request is {"headers": {...}, "body": base64, "batch": whether it belongs to a
batch transform}, an answer {"status", "phrase", "type", "body"}.
"""

import base64
import json
import os
import sys

from sagemaker_pytorch_serving_container.handler_service import HandlerService
from ts.context import Context, RequestProcessor


def main(model_dir: str) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the module says is no answer
    service, context = HandlerService(), Context("model", model_dir, {}, 1, None, "0.12.0")
    service.initialize(context)
    for line in sys.stdin:
        request = json.loads(line)
        os.environ["SAGEMAKER_BATCH"] = json.dumps(request["batch"])
        context.request_processor = [RequestProcessor(request["headers"])]
        (body,) = service.handle([{"body": bytearray(base64.b64decode(request["body"]))}], context)
        status, phrase = context.get_response_status(0)
        content_type = context.get_response_content_type(0)
        answers.write(json.dumps({"status": status, "phrase": phrase, "type": content_type, "body": body}) + "\n")
        answers.flush()


if __name__ == "__main__":
    main(sys.argv[1])
