#!/usr/bin/env bash
# What the pages and the code say of each other.
set -u
. tests/cli/tap.sh
try_check() { out=$("$@" 2>&1); rc=$?; err=""; }

try_check scripts/check-method --self-test
check "the check of citations finds a section that does not exist" code 0
try_check scripts/check-method
check "every cited section of docs/method.md exists" code 0
finish
