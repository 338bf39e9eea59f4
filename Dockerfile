# One image for the Prefect server, the MLflow server and the worker: the versions that were tested together.
FROM python:3.11-slim

# Where pip finds torch besides PyPI: the CPU wheels, which are a fraction of the size. For a GPU, build with
# --build-arg TORCH_INDEX=https://download.pytorch.org/whl/<your CUDA version>.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PYTHONUNBUFFERED=1 \
    OMP_WAIT_POLICY=PASSIVE \
    DO_NOT_TRACK=1 \
    MLFLOW_DISABLE_TELEMETRY=true \
    PREFECT_SERVER_ANALYTICS_ENABLED=false \
    PREFECT_SERVER_UI_STATIC_DIRECTORY=/tmp/prefect-ui \
    MNEME_HOME=/var/lib/mneme \
    PREFECT_HOME=/var/lib/mneme/prefect \
    HF_HOME=/var/lib/mneme/huggingface

# The volumes take over the owner of these folders when they are first mounted.
RUN useradd --create-home --uid 10001 mneme \
    && install --directory --owner=mneme --group=mneme /var/lib/mneme /var/lib/mlflow

WORKDIR /app

# The dependencies alone, so that a change of our code does not install them again.
COPY pyproject.toml constraints.txt README.md ./
RUN pip install --constraint constraints.txt --extra-index-url "$TORCH_INDEX" '.[server]' \
    && pip uninstall --yes mneme

COPY . .
RUN pip install --no-deps --editable .

USER mneme
CMD ["mneme", "--help"]
