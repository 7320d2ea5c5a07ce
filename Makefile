# Kiln. `make help` lists what there is.

GO ?= go
KILN_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/kiln
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS := -s -w -X github.com/kiln-os/kiln/internal/version.Version=$(VERSION)
GOBUILD := CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)'

# containerd's tests mount; where we are not root, a user name space allows it.
AS_ROOT := $(shell [ "$$(id -u)" = 0 ] || echo unshare --map-root-user --mount --)

.PHONY: help build demo test test-unit test-race test-integration test-boot lint clean
.DEFAULT_GOAL := help

help: ## this text
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 20

build: ## bin/imagegen and bin/firstboot
	$(GOBUILD) -o bin/ ./cmd/imagegen ./cmd/firstboot

demo: build ## bake the example cluster and boot it in QEMU until its node is Ready
	bin/imagegen build examples/single-node.yaml -o out/demo
	bin/imagegen boot examples/single-node.yaml -o out/demo --until-ready

test: lint test-unit test-race test-integration test-boot ## everything: unit, script, golden, reference tools, real API server, VM boot

lint: ## gofmt, go vet, staticcheck
	@out=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$out" ]; then echo "not gofmt-clean:"; echo "$$out"; exit 1; fi
	$(GO) vet ./...
	$(GO) vet -tags boot,integration ./...
	$(GO) tool staticcheck ./...

test-unit: ## table tests, scripts of the real binaries, golden digests, reference tools
	$(GO) test ./...

test-race: ## the packages with goroutines, under the race detector
	@command -v $$($(GO) env CC) >/dev/null || { echo "skipped: test-race: the race detector needs a C compiler (gcc and libc6-dev)"; exit 0; }; \
	echo $(GO) test -race; \
	$(GO) test -race ./internal/cache/... ./internal/phase/... ./internal/qemu/... ./images/deb/... ./images/verity/... ./payload/...

test-integration: build ## the phases of firstboot against a real etcd and kube-apiserver on loopback
	KILN_CONTAINERD=$$(bin/imagegen payload | awk '$$1 == "containerd" { print $$3 }') \
		$(AS_ROOT) $(GO) test -tags integration -count=1 -timeout 20m ./internal/apitest/... ./internal/phases/images/...

test-boot: build ## a virtual machine from firmware to a Ready node, and a reboot
	KILN_IMAGEGEN=$(CURDIR)/bin/imagegen $(GO) test -tags boot -count=1 -v -p 1 -timeout 60m ./qemu-tests/... ./internal/qemu/...

clean: ## removes bin/ and out/, not the cache
	rm -rf bin out
