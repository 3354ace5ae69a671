#!/bin/bash
# stress-ng, class filesystem and what of class io works on files: a stressor a case,
# what it writes is verified.
set -u

stressors="access chattr chdir chmod chown copy-file dentry dir dirdeep dirmany dnotify dup
fallocate fanotify fcntl fiemap file-ioctl filename flock fpunch fsize fstat getdent
handle hdd inode-flags inotify io iomix ioprio lease link locka lockf lockofd mknod open
rename symlink sync-file touch utime xattr aio aiol io-uring readahead revio seek"
sizes="--copy-file-bytes 128M --fallocate-bytes 8M --hdd-bytes 4M --iomix-bytes 4M
--readahead-bytes 4M --revio-bytes 4M --seek-size 4M --sync-file-bytes 4M"

seconds=1 operations=100
[ -z "$LONG" ] || seconds=5 operations=2000

for name in $stressors; do
    mkdir "$name" && cd "$name" || exit 1
    # shellcheck disable=SC2086 # words
    timeout -k 5 60 stress-ng --temp-path . --verify --timeout "$seconds" $sizes \
        --"$name" 1 --"$name"-ops "$operations" >"$SCRATCH/said" 2>&1
    status=$?
    cd .. || exit 1
    case $status in
        0) echo "ok $name" ;;
        3 | 4) echo "not ok $name: cannot be done here" ;;
        *) echo "not ok $name: status $status: $(grep -vE "info:|^$" "$SCRATCH/said" | head -n 3 | tr '\n' ' ')" ;;
    esac
    # It leaves what it was in when it was ended.
    rm -rf "$name" 2>"$SCRATCH/said" || echo "not ok $name-removed: $(head -n 1 "$SCRATCH/said")"
done
