"""multiprocessing in all ways of starting, and sqlite3 by several processes at once."""
import concurrent.futures
import fcntl
import mmap
import multiprocessing
import multiprocessing.shared_memory
import os
import sqlite3
import sys
import tempfile


def work(number):
    name = f"parts/{number:03}"
    with tempfile.NamedTemporaryFile("w", dir="parts", delete=False) as file:
        file.writelines(f"{i * number % 1009}\n" for i in range(2000))
    os.rename(file.name, name)
    os.chmod(name, 0o644)
    with open("log", "a") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        log.write(f"{number}\n")
    with open(name) as file:
        return number, sum(map(int, file))


def store(number):
    connection = sqlite3.connect("results.sqlite", timeout=120)
    for i in range(5):
        with connection:
            connection.execute("INSERT INTO r VALUES (?, ?)", (number, i))
    connection.close()
    return number


def fill(lock, first):
    """Every process its own quarter of one mapped file."""
    with open("mapped", "r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        for i in range(first, first + 4096):
            memory[i] = i % 251
        with lock:
            memory[16384] += 1
        memory.flush()


def database(mode):
    connection = sqlite3.connect("results.sqlite")
    connection.execute(f"PRAGMA journal_mode={mode}")
    connection.execute("CREATE TABLE r (number INTEGER, i INTEGER)")
    connection.commit()
    connection.close()
    with multiprocessing.Pool(3) as pool:
        pool.map(store, range(6))
    connection = sqlite3.connect("results.sqlite")
    print(mode, connection.execute("PRAGMA integrity_check").fetchone(), connection.execute("SELECT count(*), sum(number * i) FROM r").fetchone())
    with open(f"{mode}.sql", "w") as dump:
        rows = connection.execute("SELECT * FROM r ORDER BY number, i")
        dump.writelines(f"{row}\n" for row in rows)
    copy = sqlite3.connect("copy.sqlite")
    connection.backup(copy)
    copy.close()
    connection.execute("VACUUM")
    connection.close()
    for name in ["results.sqlite", "copy.sqlite"]:
        os.remove(name)


def main():
    os.mkdir("parts")
    open("log", "w").close()
    for method, numbers in [("fork", range(40)), ("spawn", range(40, 44)), ("forkserver", range(44, 48))]:
        with multiprocessing.get_context(method).Pool(3) as pool:
            print(method, sorted(pool.map(work, numbers)))
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        print(sum(total for _, total in threads.map(work, range(48, 60))))
    with open("log") as log, open("sorted", "w") as out:
        out.writelines(sorted(log, key=int))
    os.remove("log")

    with open("mapped", "wb") as file:
        file.truncate(16385)
    lock = multiprocessing.Lock()
    children = [multiprocessing.Process(target=fill, args=(lock, i * 4096)) for i in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    print([child.exitcode for child in children])
    shared = multiprocessing.shared_memory.SharedMemory(create=True, size=1000)
    shared.buf[0] = 7
    shared.close()
    shared.unlink()
    for mode in ["DELETE", "TRUNCATE", "PERSIST", "WAL"]:
        database(mode)
    for left in ["results.sqlite-journal"]:
        if os.path.exists(left):
            os.remove(left)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
