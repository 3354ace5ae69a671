#!/bin/bash
# Benchmarks as loads: bonnie++, dbench with a file server's trace, fs_mark.
set -u

# check CASE WHAT_IT_SAYS COMMAND...
check() {
    local name=$1 pattern=$2
    shift 2
    if "$@" >"$SCRATCH/said" 2>&1 && grep -q -- "$pattern" "$SCRATCH/said"
    then echo "ok $name"
    else echo "not ok $name: $(grep -v '^$' "$SCRATCH/said" | tail -n 3 | tr '\n' ' ')"
    fi
}

user=$(id -un)
files=1 megabytes=8 seconds=3 clients=2 count=200
[ -z "$LONG" ] || files=16 megabytes=256 seconds=30 clients=8 count=5000

check bonnie '^1' /usr/sbin/bonnie++ -q -d . -s "$megabytes" -r 1 -n "$files:4096:0:4" -x 1 -u "$user" -m x
check bonnie-threads '^1' /usr/sbin/bonnie++ -q -d . -s "$megabytes" -r 1 -n "$files" -c 4 -x 1 -u "$user" -m x
trace=$(find /usr/share -path '*dbench*' -name 'client.txt*' | head -n 1)
check dbench '^Throughput' dbench -c "$trace" -t "$seconds" -D . "$clients"
check dbench-synced '^Throughput' dbench -c "$trace" -t "$seconds" -s -S -F -D . "$clients"
for method in 0 1 2 5; do
    check "fs_mark-$method" 'Files/sec' fs_mark -d one -d two -D 5 -N 20 -n "$count" -s 5000 -t 2 -S "$method" -l "$SCRATCH/log"
done
rm -rf ./*
