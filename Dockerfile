# The image for MLflow's Docker and Kubernetes backends: what conda.yaml pins, and nothing else.
# These backends copy the project itself on top of it and say what is run.
FROM python:3.11.7-slim

COPY conda.yaml /tmp/conda.yaml
RUN sed -n 's/^ *- \([a-z-]*==.*\)$/\1/p' /tmp/conda.yaml > /tmp/requirements.txt \
    && pip install --no-cache-dir --requirement /tmp/requirements.txt \
    && rm /tmp/conda.yaml /tmp/requirements.txt
