# The commands of the README. Each is idempotent, asks nothing, and needs root or sudo where it says so.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

GON_DATA_DIR ?= $(CURDIR)/.gon
GON_LISTEN   ?= 127.0.0.1:8080
export GON_DATA_DIR GON_LISTEN

.PHONY: help up down clean-data test test-long bench check fmt console images deb test-lab

help: ## what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

up: ## install what is missing, build, start the cloud, launch an instance that answers SSH
	@scripts/up.sh

down: ## stop everything and leave no process, port, bridge or mount behind; keeps the data
	@scripts/down.sh

clean-data: down ## also remove the data
	@scripts/down.sh --remove-data

test: ## install what the tests need and run all of them
	@scripts/test.sh

test-long: ## the whole figures of the fault matrix, about two hours
	@scripts/test.sh --long

bench: ## ours beside the peers, as ratios of one run
	@scripts/bench.sh

test-lab: deb ## three servers as virtual machines, installed from the packages as the README says; as root
	@scripts/lab.sh

deb: ## Debian packages in target/deb, for Debian 12 and Ubuntu 22.04
	@scripts/deb.sh

check: ## what a change must pass before it is committed, without root
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo xtask arch

fmt: ## format
	cargo fmt --all

console: ## build the web console
	@scripts/console-build.sh

images: console ## build the default machine images
	cargo run --release --locked -p gond -- image build --images-dir "$(GON_DATA_DIR)/images" all
