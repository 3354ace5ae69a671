"""A step as data people write them: csv, gzip, os.scandir, pathlib, subprocess,
temporary files and a rename. Reads measurements.csv; writes a folder."""
import csv
import gzip
import io
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import zipfile

out = pathlib.Path("out")
out.mkdir()
stations = {}
with open("measurements.csv", newline="") as file:
    for row in csv.DictReader(file):
        stations.setdefault(row["station"], []).append(int(row["value"]))
for name, values in stations.items():
    with gzip.GzipFile(out / f"{name}.gz", "wb", mtime=0) as raw, io.TextIOWrapper(raw) as text:
        text.writelines(f"{value}\n" for value in values)

means = {}
with os.scandir(out) as entries:
    for entry in entries:
        assert entry.is_file() and entry.stat().st_size > 0, entry
        with gzip.open(entry.path, "rt") as text:
            values = [int(line) for line in text]
        means[entry.name] = sum(values) / len(values)
assert set(means) == {f"{name}.gz" for name in stations}, means

with tempfile.NamedTemporaryFile("w", dir=out, delete=False) as file:
    json.dump(means, file, sort_keys=True, indent=1)
    file.flush()
    os.fsync(file.fileno())
os.chmod(file.name, 0o640)
os.replace(file.name, out / "means.json")

with open(out / "sorted.csv", "w") as file:
    subprocess.run(["sort", "-t,", "-k2n", "measurements.csv"], stdout=file, check=True)
lines = subprocess.check_output("wc -l < out/sorted.csv", shell=True, text=True)
assert int(lines) == sum(map(len, stations.values())) + 1, lines

(out / "deep" / "er").mkdir(parents=True)
shutil.copy2(out / "means.json", out / "deep" / "er" / "copy.json")
shutil.copyfile("measurements.csv", out / "deep" / "data.csv")
with open(out / "update.bin", "w+b") as file:
    file.write(bytes(range(256)) * 64)
    file.seek(1000)
    file.write(b"in the middle")
    file.truncate(9000)
    file.seek(-5, os.SEEK_END)
    assert len(file.read()) == 5
with zipfile.ZipFile(out / "all.zip", "w") as archive:
    info = zipfile.ZipInfo("means.json", date_time=(2000, 1, 1, 0, 0, 0))
    archive.writestr(info, (out / "means.json").read_bytes())
assert zipfile.ZipFile(out / "all.zip").namelist() == ["means.json"]
names = sorted(str(path) for path in pathlib.Path(".").rglob("*") if path.is_file())
(out / "names.txt").write_text("\n".join(names) + "\n")
os.chdir("out/deep")
assert os.path.realpath("er/../../means.json").endswith("/out/means.json")
assert not os.path.exists("missing")
try:
    open("missing")
    sys.exit("a missing file was opened")
except FileNotFoundError:
    pass
