#!/bin/bash
# tar, rsync, cp and mv: a tree of small files, links and odd names goes in, is
# changed, comes out, and is the same.
set -u

files=2000
[ -z "$LONG" ] || files=20000

python3 - "$SCRATCH/tree" "$files" <<'END'
import os, random, sys
top, files = sys.argv[1], int(sys.argv[2])
dice = random.Random(1)
for at in range(files):
    folder = f"{top}/d{at % 40}/e{at % 7}"
    os.makedirs(folder, exist_ok=True)
    path = f"{folder}/f {at}" if at % 50 == 0 else f"{folder}/f{at}"
    with open(path, "wb") as file:
        file.write(dice.randbytes(dice.choice([0, 10, 300, 4096, 20000])))
    if at % 90 == 0:
        os.link(path, f"{folder}/hard{at}")
    if at % 70 == 0:
        os.symlink(f"../e{at % 7}/f{at}", f"{folder}/soft{at}")
    if at % 110 == 0:
        os.truncate(path, 100000)
    if at % 30 == 0:
        os.chmod(path, 0o640 if at % 60 else 0o755)
    os.utime(path, ns=(10**18 + at, 10**18 + 12345 * at))
os.mkfifo(f"{top}/fifo")
os.mkdir(f"{top}/empty")
END

# Kinds, modes, sizes, times, links and sums of all that is below a directory.
listing() {
    (cd "$1" && find . -type d -printf '%P d %m %T@\n' -o -printf '%P %y %m %n %l %s %T@\n' |
        LC_ALL=C sort && find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum)
}
listing "$SCRATCH/tree" >"$SCRATCH/wanted"

# check CASE DIRECTORY COMMAND...: the tree is there afterwards.
check() {
    local name=$1 directory=$2
    shift 2
    if ! "$@" >"$SCRATCH/said" 2>&1; then
        echo "not ok $name: $(tail -n 2 "$SCRATCH/said" | tr '\n' ' ')"
    elif ! listing "$directory" | cmp -s - "$SCRATCH/wanted"; then
        echo "not ok $name: $(listing "$directory" | diff - "$SCRATCH/wanted" | head -n 4 | tr '\n' ' ')"
    else
        echo "ok $name"
    fi
}

mkdir in
check tar-in in sh -c 'tar -C "$SCRATCH/tree" --format=posix -cf - . | tar -C in -xpf -'
check tar-kept in sh -c 'tar -C in --format=posix -cSf tree.tar . && mkdir "$SCRATCH/out" && tar -C "$SCRATCH/out" -xpf tree.tar'
check tar-out "$SCRATCH/out" true
check tar-zipped zipped sh -c 'mkdir zipped && tar -C in --format=posix -czf tree.tgz . && tar -C zipped -xpzf tree.tgz'
check tar-compares in tar -C in -df tree.tar
rm -rf zipped tree.tgz tree.tar "$SCRATCH/out"
check rsync-in synced rsync -aHS "$SCRATCH/tree/" synced/
check rsync-again synced sh -c 'rsync -aHSi "$SCRATCH/tree/" synced/ >"$SCRATCH/changes"; [ ! -s "$SCRATCH/changes" ] || { head -n 3 "$SCRATCH/changes"; false; }'
check rsync-repairs synced sh -c 'find synced -name "f1*" -size +1k -exec sh -c "echo more >>\"\$1\"" - {} \; && find synced -name "soft*" -delete &&
    rsync -aHS --checksum --delete "$SCRATCH/tree/" synced/'
check rsync-inplace synced sh -c 'find synced -name "f2*" -size +1k -exec truncate -s 100 {} + && rsync -aHS --inplace --no-whole-file "$SCRATCH/tree/" synced/'
check rsync-out "$SCRATCH/back" rsync -aHS synced/ "$SCRATCH/back/"
check rsync-between moved rsync -aHS --remove-source-files synced/ moved/
check cp-in copied cp -a "$SCRATCH/tree" copied
check cp-within twice cp -a copied twice
check cp-out "$SCRATCH/copied" cp -a twice "$SCRATCH/copied"
check mv-within renamed mv twice renamed
check mv-out "$SCRATCH/renamed" mv renamed "$SCRATCH/renamed"
check mv-in renamed mv "$SCRATCH/renamed" renamed
check diff copied diff -r --no-dereference --exclude=fifo copied renamed
rm -rf ./* || echo "not ok removed: rm fails"
