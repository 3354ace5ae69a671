#!/bin/bash
# fsx: random reads, writes, mappings, cuts and holes of one file, checked against a
# copy in memory; then two at once on files of one directory.
set -u

cat >"$SCRATCH/fsx.toml" <<END
nomsyncafterwrite = true
[weights]
close_open = 1
invalidate = 1
mapread = 10
mapwrite = 10
read = 10
write = 10
truncate = 5
fsync = 0.01
fdatasync = 0.01
punch_hole = 1
sendfile = 1
posix_fadvise = 1
END
# The same without mappings: the file stays in the fast cache.
sed '/^map\|^invalidate/s/=.*/= 0/' "$SCRATCH/fsx.toml" >"$SCRATCH/unmapped.toml"

# The long form makes a million operations with mappings.
operations=10000
[ -z "$LONG" ] || operations=100000

# exercise CASE CONFIGURATION SEED TIMES
exercise() {
    if "$TOOLS/fsx" -f "$SCRATCH/$2.toml" -N "$((operations * $4))" -S "$3" -P "$SCRATCH" "$1" >"$SCRATCH/said.$1" 2>&1
    then echo "ok $1"
    else echo "not ok $1: $(tail -n 3 "$SCRATCH/said.$1" | tr '\n' ' ')"
    fi
}

exercise mapped fsx 1 4
exercise unmapped unmapped 2 2
exercise both-1 fsx 3 3 &
exercise both-2 fsx 4 3 &
wait
rm -f mapped unmapped both-1 both-2
