"""Every kind of path through every call that takes one: what came of each is
printed. Runs in its working directory; `$OUTSIDE` lies elsewhere."""
import errno
import os
import shutil

here = os.getcwdb()
parent, own = os.path.split(here)
# A directory of our own beside: two runs must not meet.
outside = os.path.join(os.environb[b"OUTSIDE"], b"paths")
shutil.rmtree(outside, ignore_errors=True)
os.mkdir(outside)


def tell(what, call):
    try:
        came = call()
    except OSError as error:
        came = errno.errorcode[error.errno]
    except ValueError:
        came = "ValueError"
    print(what, repr(came), flush=True)


def put(path, content=b"x"):
    with open(path, "wb") as file:
        return file.write(content)


def get(path):
    with open(path, "rb") as file:
        return file.read()


# Names of any bytes but NUL and slash.
names = [b"a b", b"new\nline", b"\xff\xfe", b'quo"te', b"'single", b"back\\slash", b"\x1b[2J",
         b"-rf", b"~", b"*", b"?", b"[a]", b"tab\t", b"\x01", b"\xe2\x80\xae", b"...", b"..a",
         b"%s%n", b"a:b", b"#", b"\r", b"\x7f", b"n" * 255, bytes(range(1, 47))]
for name in names:
    folder = (b"d" + name)[:255]
    tell(name, lambda: put(name, name))
    tell(" get", lambda: get(name) == name)
    tell(" size", lambda: os.stat(name).st_size)
    tell(" mkdir", lambda: os.mkdir(folder))
    tell(" inner", lambda: put(folder + b"/" + name, b"inner"))
    tell(" list", lambda: os.listdir(folder))
    tell(" rename", lambda: os.rename(folder + b"/" + name, folder + b"/r"))
    tell(" back", lambda: os.rename(folder + b"/r", folder + b"/" + name))
    tell(" link", lambda: os.link(name, folder + b"/l"))
    tell(" symlink", lambda: os.symlink(b"../" + name, folder + b"/s"))
    tell(" readlink", lambda: os.readlink(folder + b"/s"))
    tell(" through", lambda: get(folder + b"/s") == name)
    tell(" real", lambda: os.path.realpath(folder + b"/../" + name) == here + b"/" + name)
    tell(" chdir", lambda: (os.chdir(folder), os.path.basename(os.getcwdb()), os.chdir(b".."))[1])
    tell(" chmod", lambda: os.chmod(name, 0o600))
    tell(" utime", lambda: os.utime(name, (1, 1)))
    tell(" truncate", lambda: os.truncate(name, 1))
    tell(" access", lambda: os.access(name, os.R_OK))
    tell(" fifo", lambda: os.mkfifo(folder + b"/p"))
    tell(" unlink", lambda: os.unlink(folder + b"/p"))
    tell(" scandir", lambda: sorted(entry.name for entry in os.scandir(folder)))

# Too long.
for name in [b"n" * 256, b"n" * 5000]:
    tell(len(name), lambda: put(name))
    tell(" mkdir", lambda: os.mkdir(name))
    tell(" stat", lambda: os.stat(name))
    if len(name) < 4096:
        # Beyond it is EXDEV: nobody can read such a path.
        tell(" rename", lambda: os.rename(b"a b", name))
        tell(" link", lambda: os.link(b"a b", name))
    tell(" symlink", lambda: os.symlink(b"x", name))
    tell(" unlink", lambda: os.unlink(name))
    tell(" chdir", lambda: os.chdir(name))
tell("symlink 4095", lambda: os.symlink(b"y" * 4095, b"long"))
tell("readlink 4095", lambda: len(os.readlink(b"long")))
tell("symlink 4096", lambda: os.symlink(b"y" * 4096, b"longer"))
for length in [4094, 4095, 4096, 4097, 20000]:
    path = b"./" * ((length - 3) // 2) + b"/" * ((length - 3) % 2) + b"a b"
    assert len(path) == length
    whole = here + b"/" * (length - len(here) - 3) + b"a b"
    for path in [path, whole]:
        tell(length, lambda: len(get(path)))
        tell(" stat", lambda: os.stat(path).st_size)
        tell(" put", lambda: put(path, b"z"))
        tell(" list", lambda: os.listdir(path))
        tell(" chdir", lambda: os.chdir(path))

# Nothing, dots and slashes.
os.mkdir(b"sub")
for path in [b"", b".", b"./", b"a b/", b"none/", b"none/..", b"none/../a b", b"sub/", b"sub//",
             b"sub/../a b", b"./././a b", b".//a b", here + b"//a b", here + b"/./a b",
             here + b"/sub/../a b", here + b"/../" + own + b"/a b", b"../" + own + b"/a b",
             b"../" + own + b"/./sub/../a b", b"../nowhere/../" + own + b"/a b"]:
    tell(path.replace(here, b"HERE").replace(own, b"OWN"), lambda: None)
    tell(" get", lambda: get(path))
    tell(" stat", lambda: oct(os.stat(path).st_mode))
    tell(" lstat", lambda: oct(os.lstat(path).st_mode))
    tell(" access", lambda: os.access(path, os.F_OK))
    tell(" readlink", lambda: os.readlink(path))
    tell(" list", lambda: len(os.listdir(path)))
    tell(" truncate", lambda: os.truncate(path, 1))

# Out of the directory and into it, by links and dots.
put(outside + b"/o", b"outside")
os.symlink(outside, b"out")
tell("out", lambda: get(b"out/o"))
tell("made outside", lambda: put(b"out/new", b"new"))
tell("is outside", lambda: get(outside + b"/new"))
tell("removed outside", lambda: os.unlink(b"out/new"))
os.symlink(here, outside + b"/in")
tell("out and in", lambda: put(b"out/in/outin", b"outin"))
tell("is in", lambda: get(b"outin"))
os.symlink(b"..", b"up")
tell("up", lambda: put(b"up/" + own + b"/viaup", b"viaup"))
tell("is in", lambda: get(b"viaup"))
os.symlink(here, b"abs")
tell("abs", lambda: put(b"abs/abs/viaabs", b"viaabs"))
tell("is in", lambda: get(b"viaabs"))
os.symlink(here + b"/../" + own, b"absup")
tell("absup", lambda: put(b"absup/viaabsup", b"viaabsup"))
tell("is in", lambda: get(b"viaabsup"))
tell("by dots", lambda: put(b"../" + own + b"/viadots", b"viadots"))
tell("is in", lambda: get(b"viadots"))
tell("renamed by dots", lambda: os.rename(b"../" + own + b"/viadots", b"up/" + own + b"/moved"))
tell("is in", lambda: get(b"moved"))
tell("lists", lambda: sorted(os.listdir(b"up/" + own)) == sorted(os.listdir(b".")))
os.symlink(b"loop", b"loop")
for path in [b"loop", b"loop/", b"loop/x"]:
    tell(path, lambda: get(path))
    tell(" chdir", lambda: os.chdir(path))
tell("put", lambda: put(b"loop"))
tell("exclusive", lambda: os.open(b"loop", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
os.symlink(b"two", b"one")
os.symlink(b"one", b"two")
tell("one", lambda: get(b"one"))
last = b"a b"
for number in range(45):
    os.symlink(last, b"c%d" % number)
    last = b"c%d" % number
for number in [38, 39, 40, 41, 44]:
    tell(number, lambda: get(b"c%d" % number))
os.symlink(b"nowhere", b"dangling")
tell("dangling", lambda: get(b"dangling"))
tell("made through it", lambda: put(b"dangling", b"made"))
tell("nowhere", lambda: get(b"nowhere"))

# These name the directory of this run.
for link in [b"out", b"abs", b"absup"]:
    os.unlink(link)
shutil.rmtree(outside)
