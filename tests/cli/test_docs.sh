#!/usr/bin/env bash
# What the pages name exists: links, paths, commands, options and keys.
cd "$(dirname "$0")/../.."
. tests/cli/tap.sh

out=$(scripts/check-docs --self-test 2>&1)
rc=$?
check "the check of the pages can fail" [ "$rc" -eq 0 -a -z "$out" ]
all=$(scripts/check-docs 2>&1)
all_rc=$?
for page in README.md CHANGELOG.md CONTRIBUTING.md docs/*.md docs/gpu/*.md bindings/python/README.md; do
  out=$(grep -F "$page:" <<<"$all")
  check "$page names what exists" [ -z "$out" ]
done
out=$all rc=$all_rc
check "all pages together" [ "$rc" -eq 0 -a -z "$out" ]
finish
