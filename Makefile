# Active Relay. `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VERSION  := $(shell git describe --tags --always --dirty 2>/dev/null || echo unversioned)
LDFLAGS  := -s -w -X main.version=$(VERSION)
# Every test gets this long; a hang is a failure with stacks, not a stalled run.
TEST_TIMEOUT := 30m
FUZZ_TIME    := 20s
BENCH_TIME   := $(if $(SHORT),100ms,500ms)

.PHONY: help build generate test check lint drift fuzz bench bench-relay e2e soak run demo clean

help: ## list the targets
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build relay-server, relayd, relayctl and the load tool smtpload into bin/
	@CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/relay-server ./server/cmd/relay-server
	@CGO_ENABLED=0 go build -trimpath -ldflags '$(if $(PERF),,$(LDFLAGS))' -o bin/relayd ./relayd/cmd/relayd
	@CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/relayctl ./cli/cmd/relayctl
	@CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o bin/smtpload ./relayd/cmd/smtpload
	@echo "built bin/{relay-server,relayd,relayctl,smtpload} $(VERSION)"

generate: ## write again what is generated from openapi.yaml
	go generate ./...

test: ## run every test with the race detector; installs what it needs when it runs as root
	.ci/setup tests
	go test -race -shuffle=on -timeout $(TEST_TIMEOUT) ./...

e2e: ## run only the whole-system tests: three real programs, real mail servers
	.ci/setup tests
	go test -race -shuffle=on -timeout $(TEST_TIMEOUT) ./cli/e2e/...

check: lint drift ## lint, generated-code drift and architecture checks

lint: ## formatting, vet, staticcheck, contract linter
	@out=$$(git ls-files '*.go' | grep -v '\.gen\.go$$' | xargs go tool gofumpt -l); \
	  if [ -n "$$out" ]; then echo "not formatted; run: go tool gofumpt -w ."; echo "$$out"; exit 1; fi
	go vet ./...
	go tool staticcheck ./...
	.ci/setup lint
	npx --yes @stoplight/spectral-cli@6.16.3 lint openapi.yaml --fail-severity=warn
	bash -n .ci/run .ci/setup .ci/stack

drift: ## fail when generated files or go.mod differ from their sources
	@before=$$(git diff; git status --porcelain); \
	  go generate ./... && go mod tidy; \
	  if [ "$$before" != "$$(git diff; git status --porcelain)" ]; then \
	    echo "generated files or go.mod are stale; commit what 'make generate' and 'go mod tidy' wrote:"; \
	    git status --short; exit 1; fi
	go test -run 'Architecture' ./cli/e2e/

fuzz: ## run each fuzz target for FUZZ_TIME (default 20s)
	@for pkg in $$(go list ./...); do \
	  dir=$$(go list -f '{{.Dir}}' $$pkg); \
	  for target in $$(grep -hoE '^func (Fuzz[A-Za-z0-9_]+)' $$dir/*_test.go 2>/dev/null | awk '{print $$2}'); do \
	    echo "--- $$pkg $$target"; \
	    go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZ_TIME) $$pkg; \
	  done; done

bench: build ## rules, API, policy and relay measured, each beside a peer or a ceiling; SHORT=1 takes a minute or two
	.ci/setup tests
	go test -run '^$$' -bench . -benchtime $(BENCH_TIME) -timeout 30m ./api/... ./relayd/... ./server/
	BENCH=1 go test -run 'TestBench(Policy|Relay)$$' -count=1 $(if $(SHORT),-short) -timeout 30m -v ./cli/e2e/

bench-relay: build ## only relayd beside Postfix and the bare loop; SHORT=1 for four loads, LOADS='s=20.*keep' for some, PERF=dir for a profile of each
	.ci/setup tests
	BENCH=1 LOADS='$(LOADS)' PERF='$(PERF)' go test -run 'TestBenchRelay$$' -count=1 $(if $(SHORT),-short) -timeout 30m -v ./cli/e2e/

soak: ## long crash and load tests
	.ci/setup tests
	SOAK=1 go test -run 'Soak' -count=1 -timeout 120m -v ./...

run: build ## start control plane and one edge on this machine; Ctrl-C stops everything
	@.ci/stack run

demo: build ## send real mail through a temporary stack, run into the limit, show the partner's view
	@.ci/stack demo

clean: ## remove what was built
	rm -rf bin
