.PHONY: build
build:
	go build -o bin/migproxy ./cmd/migproxy
