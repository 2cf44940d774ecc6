# The server as an image. It never migrates by itself: run `yizhan migrate` before a new version.

FROM python:3.13-slim AS build
WORKDIR /srv/yizhan
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
# The pins change less often than the code: their layer is kept.
COPY requirements.lock ./
RUN pip install --require-hashes -r requirements.lock
COPY . .
RUN pip install --no-deps --no-build-isolation -e . && python -m compileall -q app migrations

FROM python:3.13-slim
RUN groupadd --system --gid 10001 yizhan \
    && useradd --system --uid 10001 --gid yizhan --no-create-home --home-dir /nonexistent yizhan \
    && install -d -o yizhan -g yizhan -m 0700 /var/lib/yizhan
COPY --from=build /opt/venv /opt/venv
COPY --from=build /srv/yizhan /srv/yizhan
WORKDIR /srv/yizhan
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    YIZHAN_DATA_DIR=/var/lib/yizhan
USER yizhan
VOLUME /var/lib/yizhan
EXPOSE 8000
# Liveness only: a database that is away must not have the server restarted (that is /readyz).
HEALTHCHECK --interval=10s --timeout=4s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=3)"]
CMD ["yizhan", "serve", "--host", "0.0.0.0", "--port", "8000"]
