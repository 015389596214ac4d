# Every command that a developer needs, and the only ones that CI runs.
# A line `name: … ## text` shows up in `make help`.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# Release binaries are static: no C, so no libc to match. With a C compiler
# about, a plain `go build` links net and os/user against libc instead. The
# image also has -trimpath; here that would compile everything once more.
STATIC := CGO_ENABLED=0

# RACE=-race puts the packages under the race detector, which needs a C
# compiler, and compiles all of the dependencies once more: on two cores that is
# three minutes of a cold start, so it is asked for: by `make check`, and by whoever
# changes what goroutines share.
RACE ?=
BUILD := $(if $(RACE),,$(STATIC))

# Tools live in module files of their own, so that theirs never become ours
# (one file a tool: tools/*.mod).
TOOL = go tool -modfile=tools/$(1).mod

.PHONY: help
help: ## show this list
	@awk 'BEGIN {FS = ":.*## "; print "usage: make TARGET [VARIABLE=value]\n"} \
		/^[a-z-]+:.*## / {printf "  %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: dev
dev: gateway ## build, then run everything on this machine: Postgres, sandbox, demo data, REST on :8080 (ARGS="--ephemeral")
	@exec ./gateway dev $(ARGS)

.PHONY: build
build: gateway ## build the static binary ./gateway

# Go knows better than make what has changed.
.PHONY: gateway
gateway:
	$(STATIC) go build -o gateway ./cmd/gateway

# GOGC: the compiler spends a quarter of a cold start on its garbage.
#
# Packages under test/ drive the built binary: the race detector would watch
# the drivers only, so they go without, and after the others, which load both
# cores. What the HTTP tests saw is then held against the contract.
.PHONY: test
test: ## all tests: vet, real Postgres, the built binary, drift; no Docker needed (TESTFLAGS="-run Name", RACE=-race)
	@export GOGC=400; seen=$$(mktemp); said=$$(mktemp); trap 'rm -f "$$seen" "$$said"' EXIT; export MENDIAN_SPECTEST_FILE="$$seen"; failed=; \
	$(BUILD) go vet $(RACE) ./... || exit; \
	$(BUILD) go test $(RACE) $(TESTARGS) $$(go list ./... | grep -v '/test/') | tee -a "$$said" || failed=1; \
	$(STATIC) go test $(TESTARGS) ./test/... | tee -a "$$said" || failed=1; \
	$(if $(TESTFLAGS),,$(STATIC) go run ./internal/handlers/spectest/speccheck -exceptions api/uncovered.yaml "$$seen" || failed=1;) \
	if [ "$$failed" ]; then \
		echo "make test: FAILED after $$SECONDS s:" >&2; \
		grep -E '^ *--- FAIL|^FAIL.|^panic: |^	+Test[^ ]+ \([0-9hms.]+\)$$' "$$said" >&2; exit 1; \
	fi; \
	echo "make test: all passed in $$SECONDS s"

# Vet ran before; nothing may hang CI; linking is quicker without DWARF.
TESTARGS = -vet=off -timeout 9m -ldflags=-w $(TESTFLAGS)

# Everything that docs/reference/attacks.md lists; -pool 1000000 is the long form
# of what pooled connections keep.
.PHONY: attack
attack: ## try every attack, bad input and leak between tenants on the built binary (ARGS="-pool 1000000")
	$(STATIC) go test -count=1 -timeout 60m -vet=off -ldflags=-w ./test/isolation -args $(ARGS)

# How much, how many processes, and the seed of a run that is to be repeated:
# ARGS="-matrix 500 -hangups 100 -kills 200 -network 300 -postgres 100 -expiries 1000 -pushes 1000 -creates 200 -upgrade 2 -slots 3 -seed 7".
.PHONY: torture
torture: ## kill, cut off and crash everything while it writes, and count what was lost (ARGS="-kills 100 -seed 7"; about an hour)
	$(STATIC) go test -v -count=1 -timeout 0 -parallel 1 -tags torture ./test/torture -args -matrix 1700 -hangups 500 -kills 400 -network 1500 -postgres 500 -expiries 10000 -pushes 10000 -creates 2000 -upgrade 8 $(ARGS)

# nginx and HAProxy are taken if they are installed (apt-get install
# --no-install-recommends nginx-light haproxy), Caddy is built once.
.PHONY: bench
bench: gateway ## measure ./gateway beside nginx, HAProxy and Caddy: 25 minutes, or SHORT=1: three, or FULL=1: more loads (docs/performance.md)
	$(STATIC) go run ./test/bench

.PHONY: bench-scale
bench-scale: gateway ## measure ./gateway with 10,000 tenants and 1,000,000 merchants, and the plans of its queries
	$(STATIC) go run ./test/bench scale

.PHONY: sbom
sbom: gateway ## write what ./gateway was built from to gateway.cdx.json (CycloneDX)
	@$(STATIC) go run ./tools/sbom gateway >gateway.cdx.json
	@echo "gateway.cdx.json: $$(grep -c '"purl"' gateway.cdx.json) parts"

.PHONY: check
check: ## what review expects besides tests: vet of both builds, the race detector, modules, lint, sqlc diff, nothing left to generate, known vulnerabilities
	go vet ./...
	go vet -tags faults,torture ./...
	go test -race $(TESTARGS) $$(go list ./... | grep -v '/test/')
	go mod verify
	$(call TOOL,lint) golangci-lint run ./...
	$(call TOOL,sqlc) sqlc diff
	$(MAKE) generate
	@git diff --exit-code --stat -- $(GENERATED) || { echo "the files above were stale: commit what make generate wrote" >&2; exit 1; }
	@tools/vulncheck
	@echo "make check: all well"

GENERATED := internal/handlers/oapi api/client internal/problem/codes.gen.go internal/wechat/errcodes.gen.go \
	docs/reference/errors.md internal/postgres/dbsqlc

.PHONY: generate
generate: ## write generated code anew: openapi.yaml -> server and client, errors.yaml -> codes, SQL -> queries
	go generate ./api
	$(call TOOL,sqlc) sqlc generate
	go test ./test/house -run '^TestQueriesAreFresh$$' -update
