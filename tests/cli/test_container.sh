#!/usr/bin/env bash
# Containerfile, as far as it can be read without building an image: its stages, what they copy, and what it installs.
cd "$(dirname "$0")/../.."
. tests/cli/tap.sh
# One instruction a line, without comments and continued lines.
file=$(grep -v '^ *#' Containerfile | sed -e ':a' -e '/\\$/N; s/\\\n//; ta' | grep -v '^$')
stages=() wrong=
while read -r word rest; do
  case $word in
    FROM)
      set -- $rest
      [ "${2:-}" = AS ] && [ -n "${3:-}" ] || wrong+=" FROM $rest;"
      [[ $1 == debian:12-slim || " ${stages[*]} " == *" $1 "* ]] || wrong+=" FROM $1;"
      stages+=("$3") ;;
    ADD | CMD | COPY | ENTRYPOINT | ENV | RUN | WORKDIR) ;;
    *) wrong+=" $word;" ;;
  esac
  # Stages that are copied or mounted from stand before.
  for from in $(grep -oE -- '(--from=|,from=)[a-z-]+' <<<"$rest" | cut -d= -f2); do
    [[ " ${stages[*]} " == *" $from "* && ${stages[-1]} != "$from" ]] || wrong+=" from=$from;"
  done
done <<<"$file"
rc=0 out=$wrong err=
check "instructions and stages are known where they are used" [ -z "$wrong" ]
check "without --target it is the image without CUDA" [ "${stages[-1]}" = cpu -a -z "$(grep -A99 'AS cpu' <<<"$file" | grep -i cuda)" ]
for command in $(grep -hoE -- '(build|`)  *--target [a-z]+' Containerfile README.md docs/*.md docs/gpu/*.md | awk '{ print $NF }' | sort -u); do
  check "--target $command is a stage" [ "$(printf '%s\n' "${stages[@]}" | grep -cx "$command")" -eq 1 ]
done
for path in $(grep '^COPY' <<<"$file" | grep -v -- --from | awk '{ print $2 }'); do
  check "COPY $path is there" [ -e "$path" ]
done
for package in $(grep -oE '/packages/[a-z0-9-]+_' <<<"$file" | sed 's/.*\///; s/_$//'); do
  check "$package is a package of the tree" grep -qx "Package: $package" debian/control
done
check "the CUDA stage builds a target of the tree" grep -q "add_custom_target($(grep -oE -- '--target [a-z_]+' <<<"$file" | cut -d' ' -f2) " cmake/cuda.cmake
for run in "$(sed 's/--mount=[^ ]*//g' <<<"$file" | sed -n 's/^RUN //p')"; do
  check "what it runs is shell" bash -n <<<"$run"
done
finish
