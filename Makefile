# SPDX-License-Identifier: Apache-2.0
# Casemate's build: plain GNU make, one pass, no recursion. `make help` lists the targets.
#
# Sources are found by room: each folder below common/, host/ and agent/ is a room, every .c in it goes into that
# side's archive, except the files named in MAINS, each of which is one program. A test is one .c below tests/unit or
# tests/fuzz and is linked against the archives, so that adding a module or a test never means editing this file.

VERSION   := 0.1.0
BUILD     ?= build
CC        ?= cc
FUZZ_CC   ?= clang
PROTOC_C  ?= protoc-c
PKG_CONFIG ?= pkg-config
WERROR    ?= 0
SANITIZE  ?=
OPT       ?= -O2

PREFIX    ?= /usr
BINDIR    ?= $(PREFIX)/bin
SBINDIR   ?= $(PREFIX)/sbin
LIBEXECDIR ?= $(PREFIX)/libexec/casemate
DATADIR   ?= $(PREFIX)/share/casemate
SYSCONFDIR ?= /etc/casemate
UNITDIR   ?= /lib/systemd/system
MANDIR    ?= $(PREFIX)/share/man
DESTDIR   ?=

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules

# ---- flags -----------------------------------------------------------------------------------------------------------

# $(call probe,FLAG...): the flags which this compiler accepts, each tried once.
probe = $(foreach f,$(1),$(shell echo 'int main(void){return 0;}' | $(CC) -Werror $(f) -x c -o /dev/null - \
            >/dev/null 2>&1 && echo $(f)))

FLAGS_CACHE := $(BUILD)/flags.$(notdir $(firstword $(CC)))$(if $(SANITIZE),.$(subst $(comma),-,$(SANITIZE))).mk
comma := ,
ifeq ($(shell [ $(FLAGS_CACHE) -nt Makefile ] && echo fresh),)
  WARN := $(call probe,-Wall -Wextra -Wformat=2 -Wshadow -Wvla -Wconversion -Wno-sign-conversion -Wstrict-prototypes \
            -Wmissing-prototypes -Wpointer-arith -Wcast-qual -Wwrite-strings -Wimplicit-fallthrough -Wundef \
            -Wold-style-definition -Wredundant-decls -Wduplicated-cond -Wduplicated-branches \
            -Wformat-signedness -Wno-missing-field-initializers)
  HARDEN := $(call probe,-fstack-protector-strong -fstack-clash-protection -fcf-protection=full \
            -ftrivial-auto-var-init=zero -fno-strict-aliasing)
  HARDEN_LD := $(call probe,-Wl$(comma)-z$(comma)relro -Wl$(comma)-z$(comma)now -Wl$(comma)-z$(comma)noexecstack)
  $(shell mkdir -p $(BUILD) && printf 'WARN := %s\nHARDEN := %s\nHARDEN_LD := %s\n' '$(WARN)' '$(HARDEN)' \
            '$(HARDEN_LD)' > $(FLAGS_CACHE).$$$$ && mv $(FLAGS_CACHE).$$$$ $(FLAGS_CACHE))
else
  include $(FLAGS_CACHE)
endif
# -Wnull-dereference reports paths through glibc macros at -O2 when instrumented; it is on for the plain build only.
WARN += $(if $(SANITIZE),,-Wnull-dereference)

CPPFLAGS := -D_GNU_SOURCE -I. -isystem $(BUILD)/gen -DCASEMATE_VERSION='"$(VERSION)"'
CFLAGS   := -std=gnu17 -g $(OPT) $(WARN) $(if $(filter 1,$(WERROR)),-Werror) $(HARDEN) -fPIE -ffunction-sections \
            -fdata-sections -fno-common
LDFLAGS  := $(HARDEN_LD) -Wl,--gc-sections
ifneq ($(SANITIZE),)
  CFLAGS  += -fsanitize=$(SANITIZE) -fno-omit-frame-pointer -fno-sanitize-recover=all
  LDFLAGS += -fsanitize=$(SANITIZE)
else
  CPPFLAGS += -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=$(if $(filter clang%,$(notdir $(CC))),2,3)
endif

HOST_PKGS  := libnghttp2 libprotobuf-c jansson libcurl libarchive libsquashfs1 sqlite3 libseccomp libcap zlib libzstd libcrypto
AGENT_PKGS := libnghttp2 libprotobuf-c
HOST_LIBS  := $(shell $(PKG_CONFIG) --libs $(HOST_PKGS) 2>/dev/null) -linih -lpthread
AGENT_LIBS := $(shell $(PKG_CONFIG) --static --libs $(AGENT_PKGS) 2>/dev/null)

# ---- what there is to build ------------------------------------------------------------------------------------------

PROTOS   := $(wildcard proto/*/*.proto)
GEN_C    := $(PROTOS:%.proto=$(BUILD)/gen/%.pb-c.c)
GEN_H    := $(GEN_C:.c=.h)

MAINS    := host/daemon/main.c host/cli/main.c host/image/convert_main.c agent/init/main.c
src       = $(filter-out $(MAINS),$(wildcard $(1)/*.c $(1)/*/*.c))
obj       = $(patsubst %.c,$(BUILD)/obj/%.o,$(1))
COMMON_O := $(call obj,$(call src,common)) $(GEN_C:$(BUILD)/gen/%.c=$(BUILD)/obj/gen/%.o)
HOST_O   := $(call obj,$(call src,host))
AGENT_O  := $(call obj,$(call src,agent))
FAKES_O  := $(call obj,$(wildcard tests/fakes/*.c))
LIBS     := $(BUILD)/lib/libhost.a $(BUILD)/lib/libagent.a $(BUILD)/lib/libfakes.a $(BUILD)/lib/libcommon.a

BIN_host/daemon/main.c        := casemated
BIN_host/cli/main.c           := casemate
BIN_host/image/convert_main.c := casemate-convert
BIN_agent/init/main.c         := casemate-agent
PROGRAMS := $(foreach m,$(wildcard $(MAINS)),$(BUILD)/bin/$(BIN_$(m)))

TESTS    := $(patsubst %.c,$(BUILD)/%,$(sort $(wildcard tests/unit/*/test_*.c tests/unit/*/*/test_*.c)))
FUZZERS  := $(patsubst %.c,$(BUILD)/%,$(sort $(wildcard tests/fuzz/fuzz_*.c)))

.PHONY: man all check unit test lint format format-check bench fuzz clean install help guest guest-kernel gen tools critest \
        demo headers
all: $(PROGRAMS) ## Build the daemon, the command, the layer converter and the guest agent

gen: $(GEN_H)

$(BUILD)/gen/%.pb-c.c $(BUILD)/gen/%.pb-c.h: %.proto
	@mkdir -p $(@D) $(BUILD)/gen
	@$(PROTOC_C) -I. --c_out=$(BUILD)/gen $<

$(BUILD)/obj/gen/%.o: $(BUILD)/gen/%.c | $(GEN_H)
	@mkdir -p $(@D)
	@echo "  CC    $(<:$(BUILD)/%=%)"
	@$(CC) $(CPPFLAGS) -Ulinux -std=gnu17 -g $(OPT) -w $(HARDEN) -fPIE -ffunction-sections -fdata-sections \
	    $(if $(SANITIZE),-fsanitize=$(SANITIZE)) -MD -MP -c -o $@ $<

# -MD and not -MMD: the generated headers are taken as a system's, and what includes them depends on them all the same.
$(BUILD)/obj/%.o: %.c | $(GEN_H)
	@mkdir -p $(@D)
	@echo "  CC    $<"
	@$(CC) $(CPPFLAGS) -Ulinux $(CFLAGS) $(CPPFLAGS_$(firstword $(subst /, ,$*))) -MD -MP -c -o $@ $<

# cmocka's assertions do not return, which the analysis of -Wnull-dereference does not know.
CPPFLAGS_tests := -Wno-null-dereference
CPPFLAGS_host := -DCASEMATE_LIBEXECDIR='"$(LIBEXECDIR)"' -DCASEMATE_DATADIR='"$(DATADIR)"' \
                 -DCASEMATE_SYSCONFDIR='"$(SYSCONFDIR)"'

$(BUILD)/lib/libcommon.a: $(COMMON_O)
$(BUILD)/lib/libhost.a: $(HOST_O)
$(BUILD)/lib/libagent.a: $(AGENT_O)
$(BUILD)/lib/libfakes.a: $(FAKES_O)
$(LIBS):
	@mkdir -p $(@D)
	@echo "  AR    $(@F)"
	@rm -f $@ && $(AR) qcsD $@ $^

link_host = @mkdir -p $(@D); echo "  LD    $(@F)"; $(CC) $(CFLAGS) -pie $(LDFLAGS) -o $@ $(filter %.o,$^) \
            -Wl,--start-group $(LIBS) -Wl,--end-group $(HOST_LIBS)

$(BUILD)/bin/casemated: $(BUILD)/obj/host/daemon/main.o $(LIBS)
	$(link_host)
$(BUILD)/bin/casemate: $(BUILD)/obj/host/cli/main.o $(LIBS)
	$(link_host)
$(BUILD)/bin/casemate-convert: $(BUILD)/obj/host/image/convert_main.o $(LIBS)
	$(link_host)
# The agent is PID 1 of a guest that has no loader and no libraries: static, and position independent all the same.
$(BUILD)/bin/casemate-agent: $(BUILD)/obj/agent/init/main.o $(BUILD)/lib/libagent.a $(BUILD)/lib/libcommon.a
	@mkdir -p $(@D); echo "  LD    $(@F)"
	@$(CC) $(CFLAGS) $(if $(SANITIZE),-pie,-static-pie) $(LDFLAGS) -o $@ $(filter %.o,$^) -Wl,--start-group \
	    $(filter %.a,$^) -Wl,--end-group $(AGENT_LIBS)
	@$(if $(SANITIZE),,cp $@ $@.debug && strip $@)

# ---- tests -----------------------------------------------------------------------------------------------------------

$(BUILD)/tests/unit/%: $(BUILD)/obj/tests/unit/%.o $(LIBS)
	@mkdir -p $(@D); echo "  LD    $(@:$(BUILD)/%=%)"
	@$(CC) $(CFLAGS) -pie $(LDFLAGS) -o $@ $< -Wl,--start-group $(LIBS) -Wl,--end-group $(HOST_LIBS) -lcmocka -lutil

# host/cri is tested with a model of the test's own, whose functions come before those of the archive; pods and
# containers are with a VM that is none.
$(BUILD)/tests/unit/host/sandbox/test_life: LDFLAGS += -Wl,-z,muldefs
$(BUILD)/tests/unit/host/sandbox/test_reconcile: LDFLAGS += -Wl,-z,muldefs
$(BUILD)/tests/unit/host/cri/%: LDFLAGS += -Wl,-z,muldefs
# Races are tested by holding one thread up in a function that it calls.
$(BUILD)/tests/unit/host/vmm/test_vm: LDFLAGS += -Wl,--wrap=qmp_client_send,--wrap=pthread_mutex_unlock
$(BUILD)/tests/unit/host/vmm/test_qmp_client: LDFLAGS += -Wl,--wrap=loop_post

# Static, because it runs in images that have nothing.
$(BUILD)/tests/bench/nettool: tests/bench/nettool.c
	@mkdir -p $(@D); echo "  LD    tests/bench/nettool"
	@$(CC) $(CPPFLAGS) $(filter-out -fPIE -fPIC,$(CFLAGS)) $(if $(SANITIZE),,-static) -o $@ $<

tests: $(TESTS)

unit: $(if $(T),$(BUILD)/$(T),$(TESTS)) ## Build and run the unit tests (T=tests/unit/ROOM/test_x for one)
	@bash scripts/run-unit.sh $(BUILD) $^

check: all unit ## Build everything and run the unit tests

test: ## Everything that CI checks (scripts/test.sh)
	@bash scripts/test.sh

# A fuzz target is LLVMFuzzerTestOneInput. It is built with libFuzzer from sources of its own instrumentation.
$(BUILD)/tests/fuzz/%: tests/fuzz/%.c
	@$(MAKE) --no-print-directory BUILD=$(BUILD)/fuzz CC=$(FUZZ_CC) SANITIZE=address,undefined,fuzzer-no-link \
	    $(BUILD)/fuzz/fuzzbin/$*
	@mkdir -p $(@D) && cp $(BUILD)/fuzz/fuzzbin/$* $@

$(BUILD)/fuzzbin/%: $(BUILD)/obj/tests/fuzz/%.o $(LIBS)
	@mkdir -p $(@D); echo "  LD    fuzz/$*"
	@$(CC) -fsanitize=address,undefined,fuzzer -o $@ $< -Wl,--start-group $(LIBS) -Wl,--end-group $(HOST_LIBS)

fuzz: $(FUZZERS) ## Build the fuzz targets and run each for FUZZ_SECONDS (default 10)
	@bash scripts/run-fuzz.sh $(BUILD) $(FUZZERS)

# On the kernel that nodes should have, unless KERNEL says otherwise.
BENCH_KERNEL := $(or $(KERNEL),tuned)
bench: all ## Ratios to containerd + runc in one run; writes build/bench/results.json (KERNEL=tuned|debian|PATH)
	@$(if $(filter tuned,$(BENCH_KERNEL)),$(MAKE) --no-print-directory guest-kernel)
	@$(MAKE) --no-print-directory guest KERNEL=$(BENCH_KERNEL)
	@bash tests/bench/run.sh

tools: ## Build crictl and critest from the Go module proxy
	@bash tests/tools/build.sh

critest: all guest ## Run critest specs: FOCUS=regex SKIP=regex; JUnit in build/critest/
	@bash tests/integration/critest.sh

demo: ## A container in a VM, from nothing, on embedded defaults
	@bash scripts/demo.sh

# ---- guest -----------------------------------------------------------------------------------------------------------

KERNEL ?= debian
GUEST_STAMP := $(BUILD)/guest/.stamp-$(subst /,-,$(KERNEL))
guest: $(GUEST_STAMP) ## Build the guest kernel + initrd (KERNEL=debian|tuned|PATH)
$(GUEST_STAMP): $(BUILD)/bin/casemate-agent $(wildcard vm-images/*) $(filter-out debian tuned,$(KERNEL))
	@bash vm-images/build.sh --agent $(BUILD)/bin/casemate-agent --out $(BUILD)/guest --kernel $(KERNEL)
	@rm -f $(BUILD)/guest/.stamp-* && touch $@

guest-kernel: ## Build the tuned guest kernel from Debian's linux-source (six minutes on two cores, once; cached)
	@bash vm-images/build-kernel.sh

# ---- lint ------------------------------------------------------------------------------------------------------------

C_FILES := $(shell git ls-files -co --exclude-standard '*.c' '*.h' 2>/dev/null)
lint: $(GEN_H) headers ## clang-tidy, cppcheck, shellcheck, header self-containment, room arrows
	@bash scripts/lint.sh $(BUILD)

headers: $(GEN_H)
	@bash scripts/check-headers.sh $(BUILD) $(filter %.h,$(C_FILES))

format: ## Format every C file with clang-format
	@clang-format -i $(C_FILES)

format-check: ## Fail when a C file is not formatted
	@clang-format --dry-run --Werror $(C_FILES)

man: $(BUILD)/man/casemated.8 ## The manual pages, from --help and the shipped configuration
$(BUILD)/man/casemated.8: $(BUILD)/bin/casemated $(BUILD)/bin/casemate scripts/casemate.conf scripts/make-man.py
	@python3 scripts/make-man.py $(BUILD)/bin scripts/casemate.conf $(@D)

install: all guest man ## Install below DESTDIR
	install -D -m 0755 $(BUILD)/bin/casemated $(DESTDIR)$(SBINDIR)/casemated
	install -D -m 0755 $(BUILD)/bin/casemate $(DESTDIR)$(BINDIR)/casemate
	install -D -m 0755 $(BUILD)/bin/casemate-convert $(DESTDIR)$(LIBEXECDIR)/casemate-convert
	install -D -m 0644 $(BUILD)/guest/vmlinux $(DESTDIR)$(DATADIR)/guest/vmlinux
	install -D -m 0644 $(BUILD)/guest/initrd.img $(DESTDIR)$(DATADIR)/guest/initrd.img
	install -D -m 0644 $(BUILD)/guest/warm.img $(DESTDIR)$(DATADIR)/guest/warm.img
	install -D -m 0644 $(BUILD)/guest/guest.json $(DESTDIR)$(DATADIR)/guest/guest.json
	install -D -m 0644 scripts/casemate.conf $(DESTDIR)$(SYSCONFDIR)/casemate.conf
	install -D -m 0644 scripts/casemated.service $(DESTDIR)$(UNITDIR)/casemated.service
	install -D -m 0644 $(BUILD)/man/casemate.1 $(DESTDIR)$(MANDIR)/man1/casemate.1
	install -D -m 0644 $(BUILD)/man/casemate.conf.5 $(DESTDIR)$(MANDIR)/man5/casemate.conf.5
	install -D -m 0644 $(BUILD)/man/casemated.8 $(DESTDIR)$(MANDIR)/man8/casemated.8

clean: ## Remove everything that was built
	rm -rf $(BUILD)

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-14s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

-include $(shell find $(BUILD)/obj -name '*.d' 2>/dev/null)
.SECONDARY:
