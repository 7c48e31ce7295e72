# syntax=docker/dockerfile:1

# The Python that the tests run on. Every dependency comes as a wheel, so no stage has a compiler.
FROM python:3.11-slim-bookworm AS base
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1

FROM base AS build
WORKDIR /src
COPY requirements-image.lock ./
RUN python -m venv --without-pip /opt/waybill \
    && pip --python /opt/waybill/bin/python install --only-binary :all: --require-hashes -r requirements-image.lock
COPY requirements-build.lock ./
RUN pip install --only-binary :all: --require-hashes -r requirements-build.lock
COPY pyproject.toml README.md LICENSE ./
COPY config config
COPY runtime runtime
COPY pipeline pipeline
COPY consumer consumer
COPY notify notify
COPY embedded embedded
COPY cli cli
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && pip --python /opt/waybill/bin/python install --no-deps /wheels/*.whl

FROM base
RUN useradd --system --uid 10001 --user-group --create-home --home-dir /var/lib/waybill waybill
COPY --from=build /opt/waybill /opt/waybill
ENV PATH=/opt/waybill/bin:$PATH WAYBILL_LOG_FORMAT=json
USER 10001:10001
WORKDIR /var/lib/waybill
# consumer, notify
EXPOSE 6065 6066 6067
ENTRYPOINT ["waybill"]
CMD ["--help"]
