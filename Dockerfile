# serve.py in a container, which is also one for SageMaker's endpoints and batch transforms:
#   docker build -t faces --build-arg PIP_EXTRA_INDEX_URL=<PyTorch's index of builds for CPUs: see pytorch.org> .
#   docker run -p 8080:8080 -v $PWD/runs:/opt/ml/model:ro -e NAME=resnet18 faces serve
# Without the argument the image gets torch for GPUs, which takes about 4 GB more.
FROM python:3.12-slim
WORKDIR /opt/program
ARG PIP_EXTRA_INDEX_URL
COPY requirements.txt ./
RUN pip install --no-cache-dir -r requirements.txt starlette uvicorn onnxruntime
COPY *.py ./
COPY toolkit toolkit
ENV SM_CHANNEL_MODEL=/opt/ml/model SERVE_HOST=0.0.0.0
EXPOSE 8080
USER nobody
ENTRYPOINT ["python", "serve.py"]
