# Kiln. `make help` lists what there is.

GO ?= go
KILN_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/kiln
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS := -s -w -X github.com/kiln-os/kiln/internal/version.Version=$(VERSION)
BUILDFLAGS := -trimpath -buildvcs=false -ldflags '$(LDFLAGS)'
GOBUILD := CGO_ENABLED=0 $(GO) build $(BUILDFLAGS)

# containerd's tests mount; where we are not root, a user name space allows it.
AS_ROOT := $(shell [ "$$(id -u)" = 0 ] || echo unshare --map-root-user --mount --)

# The date on the man pages: the same sources give the same pages.
DOCS_DATE := $(or $(SOURCE_DATE_EPOCH),$(shell git log -1 --format=%ct 2>/dev/null),0)

# The packages with code of their own for Windows' disks and files.
WINDOWS := ./images/disk ./internal/diskspace ./internal/flash ./internal/nodeimage ./internal/sparse

# The boot tests that are not in test-boot.
LONG := TestArchitectures|TestFormats|TestPXE|TestISO|TestInstall|TestUserData|TestMachines|TestJoins|TestControlPlaneLost|TestAddressFamilies|TestMixedCluster|TestRaspberryPi|TestPowerVS

.PHONY: help build bin-programs docs demo test test-unit test-race test-integration test-root test-faults test-boot test-all test-long bench lint clean
.DEFAULT_GOAL := help

help: ## this text
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 20

build: docs ## bin/imagegen and bin/firstboot, their man pages and shell completions

bin-programs:
	$(GOBUILD) -o bin/ ./cmd/imagegen ./cmd/firstboot

# firstboot's manual is written by a build of it that a node never sees.
docs: bin-programs ## bin/man and bin/completions
	SOURCE_DATE_EPOCH=$(DOCS_DATE) bin/imagegen docs bin
	SOURCE_DATE_EPOCH=$(DOCS_DATE) CGO_ENABLED=0 $(GO) run $(BUILDFLAGS) -tags docs ./cmd/firstboot docs bin

demo: build ## bake the example cluster and boot it in QEMU until its node is Ready
	bin/imagegen build examples/single-node.yaml -o out/demo
	bin/imagegen boot examples/single-node.yaml -o out/demo --until-ready

test: lint test-unit test-race test-reproducible test-integration test-root test-faults test-boot ## everything: unit, script, golden, reference tools, two builds alike, real API server, failing hosts, VM boot

lint: ## gofmt, go vet, staticcheck; that imagegen compiles for a Mac and for Windows
	@out=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$out" ]; then echo "not gofmt-clean:"; echo "$$out"; exit 1; fi
	$(GO) vet ./...
	$(GO) vet -tags bench,boot,docs,faults,integration,long,reproducible,root ./...
	GOOS=darwin GOARCH=arm64 $(GO) build -o /dev/null ./cmd/imagegen
	GOOS=windows GOARCH=amd64 $(GO) build -o /dev/null ./cmd/imagegen
	GOOS=windows GOARCH=arm64 $(GO) build -o /dev/null ./cmd/imagegen
	GOOS=windows $(GO) vet ./cmd/imagegen $(WINDOWS)
	GOOS=windows $$($(GO) tool -n staticcheck) $(WINDOWS)
	$(GO) tool staticcheck ./...

test-unit: ## table tests, scripts of the real binaries, golden digests, reference tools
	$(GO) test ./...

test-race: ## the packages with goroutines, under the race detector
	@command -v $$($(GO) env CC) >/dev/null || { echo "skipped: test-race: the race detector needs a C compiler (gcc and libc6-dev)"; exit 0; }; \
	echo $(GO) test -race; \
	$(GO) test -race -run 'TestQEMU|TestGCE|TestBrokenDisks' ./images/format/ ./internal/flash/ && \
	$(GO) test -race ./internal/build/... ./internal/cache/... ./internal/clusternet/... ./internal/discovery/... ./internal/fetch/... \
		./internal/phase/... ./internal/progress/... ./internal/qemu/... ./internal/sparse/... ./internal/vnet/... \
		./images/deb/... ./images/verity/... ./payload/...

test-reproducible: build ## two builds with the same inputs on hosts as unlike as can be give the same bytes
	KILN_IMAGEGEN=$(CURDIR)/bin/imagegen $(GO) test -tags reproducible -count=1 -v -timeout 20m -run TestReproducible ./internal/build/

test-integration: build ## firstboot against a real etcd and kube-apiserver on loopback, and beside real kubeadm; the payload as a release
	bin/imagegen payload --kubernetes v1.36.3 >/dev/null # outside of the tests' time
	KILN_CONTAINERD=$$(bin/imagegen payload | awk '$$1 == "containerd" { print $$3 }') \
		$(AS_ROOT) $(GO) test -tags integration -count=1 -timeout 20m ./internal/apitest/... ./internal/phases/images/... ./internal/reset/... ./internal/build/...

test-root: ## what takes root: disks made of files by losetup, keepalived in network name spaces, Ignition
	@[ "$$(id -u)" = 0 ] || { echo "skipped: test-root: losetup, keepalived and Ignition take root"; exit 0; }; \
	echo $(GO) test -tags root; \
	$(GO) test -tags root -count=1 -timeout 20m ./internal/flash/... ./internal/keepalived/... ./units/...

test-faults: build ## builds whose host fails them: damaged caches, lying mirrors, full disks, kill -9
	KILN_IMAGEGEN=$(CURDIR)/bin/imagegen $(AS_ROOT) $(GO) test -tags faults -count=1 -v -timeout 30m ./internal/faulttest/...

test-boot: build ## a virtual machine from firmware to a Ready node, and a reboot
	KILN_IMAGEGEN=$(CURDIR)/bin/imagegen $(GO) test -tags boot -count=1 -v -p 1 -timeout 60m ./qemu-tests/... ./internal/qemu/...

test-all: test test-long ## test, and what takes too long for every change; see docs/proofs.md

test-long: build ## boots of several nodes, other architectures, formats, clouds' user data, and of an image that machines share
	KILN_IMAGEGEN=$(CURDIR)/bin/imagegen $(GO) test -tags boot,long -count=1 -v -p 1 -timeout 600m -run '$(LONG)' ./qemu-tests/

bench: build ## every row of docs/performance.md and its reference, in one run; bench.json
	KILN_IMAGEGEN=$(CURDIR)/bin/imagegen KILN_BENCH_JSON=$(CURDIR)/bench.json \
		$(GO) test -tags bench,boot -count=1 -v -p 1 -timeout 90m -run TestBench ./qemu-tests/

clean: ## removes bin/ and out/, not the cache
	rm -rf bin out
