#!/bin/bash
# fsstress: random operations of all kinds. Processes in directories of their own must
# live to see the same as on disk; those in one directory must leave it consistent.
set -u

cc -std=gnu11 -O1 -g -Wall -Wextra -o "$SCRATCH/fsstress" "$SUITES/fsstress.c" || exit 1
seeds=4 operations=1500
[ -z "$LONG" ] || seeds=8 operations=8000

for ((seed = 1; seed <= seeds; seed++)); do
    for how in own shared; do
        mkdir "$how" && cd "$how" || exit 1
        said=$("$SCRATCH/fsstress" "$seed" "$operations" 4 "$how" 2>&1)
        status=$?
        cd .. || exit 1
        if [ "$status" -ne 0 ]; then
            echo "not ok $how-$seed: $(head -n 5 <<<"$said" | tr '\n' ';')"
        elif [ "$how" = own ]; then
            for who in 0 1 2 3; do
                echo "ok own-$seed-$who: $(sha256sum <"$SCRATCH/story.$seed.$who" | cut -c1-16)"
            done
        else
            echo "ok shared-$seed"
        fi
        rm -rf "$how" || echo "not ok $how-$seed-removed: rm fails"
    done
done
