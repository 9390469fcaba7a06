# make         build build/xkd and build/libxkd.{a,so}
# make demo    the whole way on data it makes itself: install, build, synthesise, index, pre-train
# make test    install, build, run all tests
# make asan / make tsan   the tests under sanitizers
BUILD := build

.PHONY: all setup demo test asan tsan clean
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

clean:
	cmake -E rm -rf build build-asan build-tsan build-fuzz
