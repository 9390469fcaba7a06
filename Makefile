# make         build build/xkd and build/libxkd.{a,so}
# make demo    the whole way on data that it makes itself: install, build, synthesise, index, pre-train
# make test    install, build, run all tests
# make asan / make tsan   the tests under sanitizers
# make install [DESTDIR=] [PREFIX=/usr/local]   program, libraries, headers, manual pages, completions, pkg-config, CMake files
BUILD := build
PREFIX := /usr/local
DESTDIR :=

.PHONY: all setup demo test asan tsan install clean
all: $(BUILD)/build.ninja
	cmake --build $(BUILD)

setup:
	@scripts/setup --build

$(BUILD)/build.ninja: | setup
	cmake --preset release

demo: setup all
	scripts/demo

test: setup all
	tests/run $(BUILD)

asan tsan: setup
	cmake --preset $@
	cmake --build build-$@
	tests/run build-$@

# The prefix is written into the library and libxkd.pc, so another one is configured first.
install: $(BUILD)/build.ninja
	cmake -S . -B $(BUILD) -DCMAKE_INSTALL_PREFIX=$(PREFIX)
	cmake --build $(BUILD)
	DESTDIR=$(DESTDIR) cmake --install $(BUILD)

clean:
	cmake -E rm -rf build build-asan build-tsan build-fuzz
