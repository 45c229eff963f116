# Targets of a Go project whose end-to-end tests need real mail servers.
# ARGS is handed to the demo and to bench-copy, FUZZTIME says how long each fuzz target runs.

FUZZTIME ?= 10s

.PHONY: build
build:
	CGO_ENABLED=0 go build -trimpath -o bin/migproxy ./cmd/migproxy

.PHONY: man
man:
	go run ./cmd/migproxy man bin/man/man8

# Installs and unpacks the servers that the tests start; quick when all is there.
.PHONY: setup
setup:
	sh e2e/setup.sh

# Lint has vet's findings already; without vet here a cold machine is faster.
.PHONY: test
test: setup
	go test -race -shuffle=on -vet=off -timeout 15m ./...

.PHONY: test-long
test-long:
	sh e2e/setup.sh long
	go test -race -shuffle=on -vet=off -tags long -timeout 60m ./...

# The copy beside mbsync and doveadm; say ARGS="-run small -rounds 1" for a part.
.PHONY: bench-copy
bench-copy: setup
	go test -tags benchcopy -count 1 -timeout 0 -v -run '^TestBenchCopy$$' ./e2e -args $(ARGS)

.PHONY: lint
lint:
	@unformatted=$$(gofmt -l .) && if [ -n "$$unformatted" ]; then \
		echo "not formatted, run gofmt -w on them:"; echo "$$unformatted"; exit 1; fi
	go vet ./...
	go vet -tags long,killtest,benchcopy ./...
	go tool staticcheck ./...
	go tool staticcheck -tags long,killtest,benchcopy ./...

.PHONY: generate
generate:
	go generate ./...

.PHONY: demo
demo:
	go run ./cmd/migproxy demo $(ARGS)

.PHONY: fuzz
fuzz:
	@for dir in $$(grep -rlE '^func Fuzz' --include='*_test.go' . | xargs -rn1 dirname | sort -u); do \
		for target in $$(grep -hoE '^func Fuzz[A-Za-z0-9_]+' $$dir/*_test.go | cut -d' ' -f2); do \
			echo "== $$dir $$target"; \
			go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1s $$dir || exit 1; \
		done; \
	done
