#!/bin/bash
# Shells and their plumbing: redirections, here-documents, substitutions, jobs, traps
# and descriptors by dash, bash and zsh; make -j, xargs -P, find -exec; chains of exec.
set -u

# try CASE PROGRAM...: its output, errors and status must be the same, and what it leaves.
try() {
    local name=$1 status=0
    shift
    mkdir work && cd work || exit 1
    timeout 60 "$@" >"$SCRATCH/said" 2>&1 || status=$?
    find . -type f ! -path '*/.*' | LC_ALL=C sort | while read -r file; do echo "$file" && cat "$file"; done >>"$SCRATCH/said"
    cd .. && rm -rf work
    echo "ok $name: $status $(sha256sum <"$SCRATCH/said" | cut -c1-12) $(tail -n 1 "$SCRATCH/said" | cut -c1-60)"
}

# For every shell: `name` and, up to a line of `--`, what it runs.
while read -r name; do
    script=
    while IFS= read -r line && [ "$line" != -- ]; do script+=$line$'\n'; done
    for shell in dash bash zsh; do
        try "$shell-$name" "$shell" -c "$script"
    done
done <<'END'
here-documents
x=value
cat > f <<A
one $x $(echo two)
A
cat <<'B' >> f
raw $x
B
while read a b; do echo "$b $a"; done <<C > g
1 2
3 4
C
cat f g
--
descriptors
exec 3> f 4>> g 5<> h
echo three >&3; echo four >&4; echo five >&5
{ echo out; echo err >&2; } > both 2>&1
exec 3>&4; echo moved >&3; exec 3>&- 4>&-
exec 6< both; read a <&6; read b <&6; echo "$a $b"
(echo to 3 >&3) 2> refused || echo closed
exec 5<&-; cat h
--
offsets-are-shared
seq 1 2000 > f
exec 3< f; head -c 0 <&3; read a <&3; read b <&3; sh -c 'read c; echo "in $c"' <&3; read d <&3; echo "$a $b $d"
exec 4> out; (echo sub; sh -c 'echo deeper') >&4; echo top >&4; sh -c 'echo end >&4'; cat out
--
noclobber
set -C; echo a > f; (echo b > f) 2> said || echo kept; echo c >| f; cat f
--
pipes
seq 1 5000 | tee a b | sort -rn | head -n 3 > top; wc -l < a; cmp a b && cat top
yes | head -n 10000 | uniq -c > n; cat n; false | true; echo $?
--
substitution
seq 1 300 > f; x=$(cat f | wc -l); y=`tail -n 1 f`; z=$(cat < f | head -n 1); echo "$x $y $z"; echo "$(cat <<A
in $(cat f | wc -l)
A
)"
--
jobs
for i in 1 2 3 4 5 6 7 8; do (sleep 0.0$i; echo "job $i" >> log; echo $i > "out$i") & done; wait; sort log; cat out*; rm log
sleep 5 & kill $!; wait $! 2> none; echo "killed $?"
--
traps
trap 'echo bye >> f' EXIT; (trap 'echo sub >> f' EXIT; :); sh -c 'kill -TERM $$' 2> none; echo $?; trap 'echo usr >> f' USR1; kill -USR1 $$; cat f
--
exec-chain
echo '#!/bin/sh
echo "$1" >&7; [ "$1" = 0 ] || exec ./chain $(($1 - 1))' > chain; chmod +x chain
exec 7> f; ./chain 20; exec ./chain 3
--
globs
mkdir d e; for i in 1 2 3; do : > d/f$i; : > "e/g $i"; done; echo d/* e/*; echo */*3; for f in e/*; do [ -f "$f" ] && echo "$f"; done; cd d && ls | tr '\n' ' ' && cd .. && echo d/f[12] d/f? none/x*y 2> said
--
tests
: > f; mkdir d; ln -s f l; mkfifo p; chmod 500 f; for o in e f d r w x s L p h; do for n in f d l p none; do [ -$o $n ] && printf "$o$n "; done; done; echo; sleep 0.02; : > new; [ new -nt f ] && echo newer; [ f -ef l ] && echo same
--
pipes-by-name
mkfifo p; (cat p > got &); echo through > p; for i in 1 2 3 4 5 6 7 8 9; do [ -s got ] && break; sleep 0.1; done; cat got; (sort < p > sorted; echo done >> sorted) & seq 30 -1 1 > p; wait; tail -n 2 sorted
--
working-directories
mkdir -p a/b/c; cd a/b; echo x > f; (cd c && echo y > ../g && pwd | sed 's,.*/,,'); cd ..; cat b/f b/g; cd - > /dev/null; cat f; cd c && rm -rf ../c; pwd | sed 's,.*/,,'; ls 2>&1 | head -n 1; cd ../..; rmdir b/c 2> said || echo gone
--
sources
echo 'echo "sourced $x"; y=2' > f; x=1; . ./f; echo $y; echo 'echo arguments $#' > g; sh g 1 2 3; sh < g; cat g | sh
--
END

# What dash has not.
for shell in bash zsh; do
    try "$shell-process-substitution" "$shell" -c 'seq 1 100 > f; diff <(sort f) <(sort -n f | sort) && echo same; paste <(head -n 2 f) <(tail -n 2 f); seq 1 9 | tee >(wc -l > n) > g; sleep 0.3; cat g n'
    try "$shell-here-strings" "$shell" -c 'cat <<< "one line" > f; read x < f; echo "$x"; tr a-z A-Z <<< "$x" >> f; cat f'
    try "$shell-both-streams" "$shell" -c '{ echo a; echo b >&2; } &> f; { echo c; echo d >&2; } &>> f; { echo e >&2; } |& cat >> f; cat f'
    try "$shell-named-descriptors" "$shell" -c 'exec {out}> f; echo x >&$out; exec {out}>&-; exec {in}< f; read y <&$in; echo $y'
done
try bash-coproc bash -c 'coproc C { tee f; }; echo hello >&"${C[1]}"; read x <&"${C[0]}"; echo "$x"; eval "exec ${C[1]}>&-"; wait; cat f'
try bash-mapfile bash -c 'seq 1 1000 > f; mapfile -t a < f; echo "${#a[@]} ${a[999]}"; mapfile -n 5 -s 10 b < f; echo "${b[@]}"; x=$(< f); echo "${#x}"'
try zsh-files zsh -c 'mkdir d; for i in {1..5}; do print $i > d/$i; done; print d/*(.); print -l d/*(OL) | wc -l; print ${(f)"$(<d/3)"}; zmodload zsh/mapfile && mapfile[m]=text && cat m; cat d/1 > a; cat < a'

# Builds and other parallel starters.
make_all='printf "all: %s\n" "$(seq -f o%g -s " " 1 40)" > Makefile; printf "\tcat \$^ > all\n" >> Makefile
for i in $(seq 1 40); do printf "o$i: s$i\n\t@sort s$i > \$@.tmp && mv \$@.tmp \$@\n" >> Makefile; seq $((i * 20)) -1 1 > s$i; done
make -s -j8 && make -s -j8 all > again && touch s7 && make -j4 -n | wc -l && wc -l < all'
try make-j sh -c "$make_all"
try make-recursive sh -c 'mkdir a b; printf "all: a b\na b:\n\t+@\$(MAKE) -s -C \$@\n.PHONY: a b\n" > Makefile; for d in a b; do printf "all: x y z\nx y z:\n\t@echo \$@ > \$@\n" > $d/Makefile; done; make -s -j6 && cat a/x b/z'
try cc-j sh -c 'for i in 1 2 3 4 5 6; do echo "int f$i(void) { return $i; }" > f$i.c; done; echo "int f1(void); int main(void) { return f1() - 1; }" > main.c
printf "prog: main.o f1.o f2.o f3.o f4.o f5.o f6.o\n\t\$(CC) -o \$@ \$^\n" > Makefile; make -s -j4 && ar rc lib.a f2.o f3.o && nm lib.a | grep -c " T " && ./prog; echo $?; rm prog *.o lib.a'
try xargs-p sh -c 'seq 1 200 | xargs -P 8 -n 5 sh -c "for i; do echo \$i > out.\$i; done" -; cat out.* | sort -n | tail -n 1; ls | xargs -P 4 -n 20 cat | wc -l; ls | xargs rm'
try find-exec sh -c 'mkdir -p a/b c; for i in 1 2 3; do echo $i > a/f$i; echo $i > a/b/g$i; done; find . -name "f*" -exec sh -c "cat \"\$1\" > \"\$1.copy\"" - {} \; ; find . -name "*.copy" -exec cat {} + | sort; find a -execdir sh -c "[ -e \"\$1\" ] && echo there" - {} \; | wc -l; find . -name "g*" -delete; find . -empty | sort'
try awk-files sh -c 'seq 1 500 | awk "{ print > (\"f\" \$1 % 20) } END { close(\"f3\"); while ((getline x < \"f3\") > 0) s += x; print s; print \"by command\" | \"cat >> g\" }"; cat f7 | wc -l; cat g'
try sed-in-place sh -c 'seq 1 50 > f; sed -i.old "s/1/one/" f; sed -n "3p;5w picked" f; cat picked f.old | md5sum; sed -i "/2/d" f; wc -l < f'
try perl sh -c 'perl -e "open F, q(>), q(f); print F qq(\$_\n) for 1..99; close F; open G, q(-|), q(cat f); @x = <G>; print scalar(@x), qq(\n); open H, q(+<), q(f); seek H, 10, 0; print H q(XX); close H; rename q(f), q(g); print -s q(g), qq(\n); system(q(wc -l < g))"; perl -pi -e "s/9/nine/" g; tail -n 1 g'
try sort-spills sh -c 'seq 60000 -1 1 | sort -n -S 100k -T . > f; tail -n 1 f; split -l 7000 f part.; cat part.* | cmp - f && ls | wc -l; rm f part.*'
try script-in-place sh -c 'printf "#!/bin/sh\necho \"\$0 \$#\"\n" > s; chmod +x s; ./s 1 2; PATH=.:$PATH s; printf "#!/usr/bin/env -S awk -f\nBEGIN { print \"by awk\" }\n" > a; chmod +x a; ./a; cp /bin/true t && ./t && echo ran; rm t'
try setsid-nohup sh -c 'setsid sh -c "echo apart > f"; nohup sh -c "echo out" > g 2> none; cat f g; env -i PATH=$PATH LD_PRELOAD="$LD_PRELOAD" CAPIO_DIR="$CAPIO_DIR" CAPIO_WORKFLOW_NAME="$CAPIO_WORKFLOW_NAME" CAPIO_APP_NAME="$CAPIO_APP_NAME" sh -c "echo bare > h"; cat h; flock f sh -c "echo locked >> f"; cat f; timeout 5 cat f | tail -n 1; rm none'
try python-subprocess python3 -c '
import multiprocessing, os, subprocess, tempfile
open("in", "w").write("b\na\n")
print(subprocess.run(["sort"], stdin=open("in"), stdout=open("out", "w")).returncode, open("out").read())
print(subprocess.run("cat <&3", shell=True, pass_fds=[3], capture_output=True).returncode if os.dup2(os.open("in", os.O_RDONLY), 3) == 3 else "")
def work(n):
    with open(f"w{n}", "w") as file: file.write(str(n * n))
    with open("log", "a") as log: log.write(f"{n}\n")
    return n
with multiprocessing.get_context("fork").Pool(4) as pool: print(sum(pool.map(work, range(50))))
print(len(open("log").readlines()), open("w7").read())
with tempfile.NamedTemporaryFile(dir=".") as file: file.write(b"x"); file.flush(); print(os.path.getsize(file.name))
with tempfile.TemporaryFile(dir=".") as file: file.write(b"xyz"); file.seek(0); print(file.read())
pid = os.posix_spawn("/bin/sh", ["sh", "-c", "echo spawned"], os.environ, file_actions=[(os.POSIX_SPAWN_OPEN, 1, "s", os.O_WRONLY | os.O_CREAT, 0o644)])
os.waitpid(pid, 0); print(open("s").read()); os.remove("log")
'
