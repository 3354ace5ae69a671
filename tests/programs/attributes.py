"""Extended attributes as data people use them: where a file is from, its checksum,
how far its work is. Prints all that it sees; both steps end with a listing."""
import errno
import hashlib
import os
import shutil
import subprocess
import sys


def say(path):
    follow = not os.path.islink(path)
    names = [n for n in os.listxattr(path, follow_symlinks=follow) if n.startswith("user.")]
    values = {n: os.getxattr(path, n, follow_symlinks=follow) for n in sorted(names)}
    print(path, values)


def refused(call, *arguments, **options):
    try:
        call(*arguments, **options)
    except OSError as error:
        return errno.errorcode[error.errno]
    return "not refused"


def tag(path, **attributes):
    for name, value in attributes.items():
        os.setxattr(path, "user." + name, value.encode())


def make():
    say("raw/reads.txt")
    say("raw")
    tag("raw/reads.txt", state="read")
    os.removexattr("raw/reads.txt", "user.draft")
    tag("raw", state="done")
    os.mkdir("out")
    tag("out", step="make")
    with open("raw/reads.txt", "rb") as reads, open("out/sorted.tmp", "wb") as file:
        content = b"".join(sorted(reads))
        file.write(content)
        os.setxattr(file.fileno(), "user.sha256", hashlib.sha256(content).hexdigest().encode())
        os.setxattr(file.fileno(), "user.binary", bytes(range(256)))
    os.link("out/sorted.tmp", "out/second")
    os.rename("out/sorted.tmp", "out/sorted")
    os.symlink("sorted", "out/link")
    tag("out/link", via="link")
    print(refused(os.setxattr, "out/link", "user.x", b"", follow_symlinks=False))
    print(refused(os.setxattr, "out/sorted", "user.via", b"", os.XATTR_CREATE))
    print(refused(os.setxattr, "out/sorted", "user.none", b"", os.XATTR_REPLACE))
    print(refused(os.setxattr, "out/sorted", "other.none", b""))
    print(refused(os.getxattr, "out/sorted", "user.none"))
    print(refused(os.setxattr, "out/missing", "user.none", b""))
    with open("out/gone", "w") as file:
        tag("out/gone", a="1")
        os.unlink("out/gone")
        print(os.getxattr(file.fileno(), "user.a"))
    for path in ["raw", "raw/reads.txt", "out", "out/sorted", "out/second", "out/link"]:
        say(path)


def use():
    say("out/sorted")
    content = open("out/sorted", "rb").read()
    assert os.getxattr("out/sorted", "user.sha256").decode() == hashlib.sha256(content).hexdigest()
    shutil.copy2("out/sorted", "copied")
    subprocess.run(["cp", "-a", "out/sorted", "archived"], check=True)
    subprocess.run(["cp", "--preserve=mode,timestamps", "out/sorted", "plain"], check=True)
    subprocess.run(["mv", "copied", "moved"], check=True)
    subprocess.run("ls -l moved archived plain | cut -c1-11", shell=True, check=True)
    tag("moved", state="moved")
    with open("moved", "ab") as file:
        file.write(b"more\n")
    tag("archived", big="b" * 2000)
    for path in ["moved", "archived", "plain", "raw/reads.txt", "out"]:
        say(path)


{"make": make, "use": use}[sys.argv[1]]()
