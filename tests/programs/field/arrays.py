"""numpy, pandas, h5py, netCDF4 and Pillow: the formats that data are kept in, made by
`make` and read, changed in place and summed up by `use`."""
import io
import os
import pickle
import sys

import h5py
import netCDF4
import numpy
import pandas
from PIL import Image


def make():
    rng = numpy.random.default_rng(7)
    grid = rng.integers(0, 1000, (200, 300)).astype("<i4")
    numpy.save("grid.npy", grid)
    numpy.savez_compressed("grids.npz", a=grid, b=grid[::2])
    numpy.savetxt("grid.txt", grid[:20], fmt="%d")
    grid.tofile("grid.raw")
    mapped = numpy.memmap("mapped.raw", dtype="<f8", mode="w+", shape=(128, 512))
    mapped[:] = numpy.arange(128 * 512).reshape(128, 512) / 7
    mapped.flush()
    del mapped
    opened = numpy.lib.format.open_memmap("opened.npy", mode="w+", dtype="<f4", shape=(1000, 3))
    opened[500:] = 1.5
    del opened

    table = pandas.DataFrame(
        {
            "station": rng.choice(list("abcd"), 5000),
            "when": pandas.date_range("2000-01-01", periods=5000, freq="H"),
            "value": rng.integers(0, 10000, 5000),
        }
    )
    table.to_csv("table.csv", index=False)
    table.to_csv("table.csv.gz", index=False, compression={"method": "gzip", "mtime": 0})
    table.to_pickle("table.pkl")
    table.to_json("table.json", orient="records", lines=True)
    with open("objects.pkl", "wb") as file:
        pickle.dump({"grid": grid, "names": ["x"] * 10}, file, protocol=5)

    for driver, name in [("sec2", "sec2.h5"), ("stdio", "stdio.h5"), ("core", "core.h5")]:
        with h5py.File(name, "w", driver=driver, libver="earliest") as file:
            file.create_dataset("grid", data=grid, chunks=(50, 50), compression="gzip")
            file.create_dataset("grown", (0, 4), maxshape=(None, 4), dtype="<f8", chunks=(16, 4))
            file.attrs["made"] = "here"
            for part in range(5):
                grown = file["grown"]
                grown.resize(part * 16 + 16, axis=0)
                grown[part * 16:] = part
                file.flush()

    with netCDF4.Dataset("cube.nc", "w") as cube:
        cube.createDimension("t", None)
        cube.createDimension("x", 300)
        variable = cube.createVariable("v", "i4", ("t", "x"), zlib=True, chunksizes=(10, 100))
        for i in range(40):
            variable[i] = grid[i]
    for kind in ["NETCDF3_CLASSIC", "NETCDF3_64BIT_DATA"]:
        with netCDF4.Dataset(f"{kind}.nc", "w", format=kind) as flat:
            flat.createDimension("x", 300)
            flat.createVariable("v", "f8", ("x",))[:] = grid[0]
    picture = Image.fromarray((grid % 256).astype("u1"))
    for name in ["picture.png", "picture.tif", "picture.bmp", "picture.gif", "picture.jpg"]:
        picture.save(name)


def use():
    print(numpy.load("grid.npy").sum(), numpy.load("grid.npy", mmap_mode="r")[17, 33])
    with numpy.load("grids.npz") as grids:
        print({name: int(grids[name].sum()) for name in grids})
    print(numpy.loadtxt("grid.txt", dtype=int).sum(), numpy.fromfile("grid.raw", "<i4", offset=400, count=10))
    mapped = numpy.memmap("mapped.raw", dtype="<f8", mode="r+", shape=(128, 512))
    mapped[5] += 1
    mapped.flush()
    private = numpy.memmap("mapped.raw", dtype="<f8", mode="c", shape=(128, 512))
    private[6] = 0
    print(float(mapped.sum()), float(private.sum()), numpy.load("opened.npy").sum())
    numpy.lib.format.open_memmap("opened.npy", mode="r+")[3] = 9

    table = pandas.read_csv("table.csv", parse_dates=["when"])
    for name, read in [("table.csv.gz", pandas.read_csv), ("table.pkl", pandas.read_pickle)]:
        print(name, int(read(name)["value"].sum()))
    print(sum(len(chunk) for chunk in pandas.read_json("table.json", lines=True, chunksize=700)))
    print(len(pandas.read_csv("table.csv", memory_map=True)), len(pandas.read_csv("table.csv", engine="python")))
    table.groupby(["station", table["when"].dt.month])["value"].mean().to_csv("means.csv")
    with open("objects.pkl", "rb") as file:
        print(sorted(pickle.load(file)))

    for name in ["sec2.h5", "stdio.h5", "core.h5"]:
        with h5py.File(name, "r+") as file:
            file["grid"][10:20, 10:20] = 5
            file["more"] = numpy.arange(1000)
            print(name, int(file["grid"][:].sum()), file["grown"][-1], dict(file.attrs))
        with h5py.File(name, "r") as file, io.StringIO() as names:
            file.visit(lambda name: names.write(name + " "))
            print(names.getvalue())
    with netCDF4.Dataset("cube.nc", "a") as cube:
        cube["v"][40] = 1
        print(cube["v"].shape, int(cube["v"][:].sum()))
    print([float(netCDF4.Dataset(f"{kind}.nc")["v"][:].sum()) for kind in ["NETCDF3_CLASSIC", "NETCDF3_64BIT_DATA"]])
    for name in ["picture.png", "picture.tif", "picture.bmp", "picture.gif", "picture.jpg"]:
        with Image.open(name) as picture:
            picture.resize((60, 40)).convert("L").save("small-" + name.replace("jpg", "jpeg"))
            print(name, picture.size)
    os.replace("small-picture.bmp", "thumb.bmp")


{"make": make, "use": use}[sys.argv[1]]()
