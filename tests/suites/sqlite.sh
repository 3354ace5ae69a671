#!/bin/bash
# sqlite3: two processes at once write one database, with its locks, in each journal
# mode; every row is there in the end and the database is whole.
set -u

rows=40
[ -z "$LONG" ] || rows=3000

# insert FILE WHO: one transaction a row, waiting for the other's lock.
insert() {
    for ((at = 0; at < rows; at += 20)); do
        for ((row = at; row < at + 20; row++)); do
            echo "INSERT INTO t VALUES ($2, $row, hex(zeroblob(40)));"
        done | sqlite3 -cmd '.timeout 60000' "$1" 2>>"$SCRATCH/said" || return 1
    done
}

for mode in delete truncate persist memory wal; do
    file=$mode.db
    : >"$SCRATCH/said"
    sqlite3 "$file" "PRAGMA journal_mode=$mode; PRAGMA synchronous=NORMAL;
        CREATE TABLE t (who INT, n INT, text TEXT); CREATE INDEX i ON t (who, n);" >"$SCRATCH/said" 2>&1
    insert "$file" 1 & one=$!
    insert "$file" 2 & two=$!
    wait "$one"; one=$?
    wait "$two"; two=$?
    found=$(sqlite3 -cmd '.timeout 60000' "$file" 'PRAGMA integrity_check;
        SELECT count(*), count(DISTINCT who || "," || n), sum(n) FROM t;
        DELETE FROM t WHERE n % 2; VACUUM; PRAGMA integrity_check; SELECT count(*) FROM t;' 2>&1 | tr '\n' ' ')
    if [ "$one$two" = 00 ]
    then echo "ok $mode: $found"
    else echo "not ok $mode: $(grep -v "^$mode$" "$SCRATCH/said" | head -n 2 | tr '\n' ' ')$found"
    fi
    # Databases leave what their mode says.
    echo "ok $mode-files: $(find . -name "$file*" | sort | tr '\n' ' ')"
    rm -f "$file"*
done
