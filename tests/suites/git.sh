#!/bin/bash
# git: a history made, cloned, packed, branched, merged and checked; objects have the
# same names as anywhere.
set -u

export HOME=$SCRATCH GIT_CONFIG_NOSYSTEM=1 GIT_PAGER=cat
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.org GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@example.org
export GIT_AUTHOR_DATE='2020-01-01T00:00:00Z' GIT_COMMITTER_DATE='2020-01-01T00:00:00Z'
git config --global init.defaultBranch main
git config --global protocol.file.allow always

commits=8
[ -z "$LONG" ] || commits=100

# case NAME COMMAND...: ok with the last line of what it prints.
check() {
    local name=$1 said
    shift
    if said=$("$@" 2>"$SCRATCH/err")
    then echo "ok $name: ${said##*$'\n'}"
    else echo "not ok $name: $(tail -n 2 "$SCRATCH/err" | tr '\n' ' ')"
    fi
}

history() {
    git init -q origin && cd origin || return 1
    for ((at = 1; at <= commits; at++)); do
        mkdir -p "d$((at % 5))"
        seq "$at" $((at * 300)) >"d$((at % 5))/f$at"
        seq 1 "$at" >common
        git add -A && git commit -qm "commit $at" || return 1
    done
    git rev-parse HEAD
}
branches() {
    git checkout -qb side HEAD~2 && git mv d1/f1 moved && git commit -qm side || return 1
    git checkout -q main && git merge -q -m merged side && git rebase -q HEAD~1 && git rev-parse 'HEAD^{tree}'
}

check history history
cd origin || exit 1
check branches branches
check status git status --porcelain
check stash sh -c 'echo x >>common && git stash -q && git stash pop -q && git checkout -q common && git status --porcelain'
check worktree sh -c 'git worktree add -q ../work HEAD~2 && git -C ../work status --porcelain && git worktree remove ../work'
cd .. || exit 1
check clone-local git clone -q origin local
check clone-shared git clone -q --shared origin shared
check clone-files sh -c 'git clone -q --bare --no-local origin bare && git -C bare rev-parse HEAD'
check push sh -c 'cd local && echo y >new && git add new && git commit -qm new && git push -q ../bare main && git -C ../bare rev-parse main'
check fetch sh -c 'cd local && git fetch -q ../bare main && git rev-parse FETCH_HEAD'
check repack sh -c 'git -C origin repack -adq --window=20 && ls origin/.git/objects/pack | sed "s/.*[.]//" | sort | tr "\n" " "'
check gc sh -c 'git -C local gc -q --prune=now && git -C local count-objects -v | grep -v size | tr "\n" " "'
check archive sh -c 'git -C local archive --format=tar HEAD | sha256sum'
check bundle sh -c 'git -C local bundle create -q ../all.bundle main && git clone -q all.bundle unbundled && git -C unbundled rev-parse HEAD'
for repository in origin local shared bare unbundled; do
    check "fsck-$repository" git -C "$repository" fsck --full --strict
done
check working-trees diff -r --exclude=.git local unbundled
cd / && find "$OLDPWD" -mindepth 1 -delete 2>"$SCRATCH/err" || echo "not ok removed: $(head -n 1 "$SCRATCH/err")"
