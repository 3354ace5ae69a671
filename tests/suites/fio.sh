#!/bin/bash
# fio: every engine that works on files, each block verified by its checksum; two jobs
# at once, each on two files.
set -u

size=2M
[ -z "$LONG" ] || size=64M
for engine in sync psync vsync pvsync pvsync2 mmap libaio posixaio io_uring; do
    for pattern in write randwrite randrw; do
        mkdir job && cd job || exit 1
        if fio --ioengine="$engine" --rw="$pattern" --size="$size" --bsrange=4k-64k --nrfiles=2 \
            --numjobs=2 --iodepth=4 --name=job --verify=crc32c --verify_fatal=1 --do_verify=1 \
            --verify_state_save=0 --randrepeat=1 --fsync=64 --group_reporting \
            --output="$SCRATCH/said" >"$SCRATCH/err" 2>&1
        then echo "ok $engine-$pattern"
        else echo "not ok $engine-$pattern: $(tail -n 3 "$SCRATCH/err" | tr '\n' ' ')"
        fi
        cd .. && rm -rf job
    done
done
