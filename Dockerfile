# The gateway in an image of its own: one static binary, no shell, no libc,
# not root. Build it with
#
#   docker build -t mendian/gateway:dev .
#
# UNVERIFIED: written where no Docker daemon runs. test/house reads it and
# compares it with the settings, the compose file and go.mod.

FROM --platform=$BUILDPLATFORM golang:1.26.8-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY . .
ARG TARGETOS
ARG TARGETARCH
# .git is part of the context: the binary carries its revision (gateway version).
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath -ldflags=-s -o /out/gateway ./cmd/gateway
# What is written lies in these; a volume takes over their owner when it is new.
RUN install -d -m 0700 /out/mendian/spool /out/mendian/keyset /out/mendian/sandbox

FROM gcr.io/distroless/static-debian12:nonroot
LABEL org.opencontainers.image.title="Mendian gateway" \
      org.opencontainers.image.description="A REST gateway for WeChat third-party platforms" \
      org.opencontainers.image.source="https://github.com/mendian/mendian" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /out/gateway /usr/local/bin/gateway
COPY --from=build --chown=65532:65532 /out/mendian /var/lib/mendian
USER 65532:65532
# The root may be read-only: only the spool is written, and it must outlive the
# container, for it holds replies of WeChat that are not in the database yet.
ENV GATEWAY_SPOOL_DIR=/var/lib/mendian/spool
VOLUME /var/lib/mendian/spool
EXPOSE 8080
# SIGTERM drains, for up to a minute: give it a grace period that is longer.
STOPSIGNAL SIGTERM
# No HEALTHCHECK: there is no shell and no curl to run one. Ask /readyz from
# outside, as deploy/Caddyfile does.
ENTRYPOINT ["/usr/local/bin/gateway"]
CMD ["serve"]
