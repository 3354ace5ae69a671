//! Grids: netCDF, HDF5 and maps, from one tool to the next.

use crate::{need, script};
use capio_tests::{Step, Workflow};

/// Twelve months of a made-up temperature on a small grid, as text of netCDF.
fn cdl() -> String {
    let (times, lats, lons) = (12, 10, 16);
    let list = |values: Vec<String>| values.join(", ");
    let axis = |n: u32, first: f64, by: f64| {
        list(
            (0..n)
                .map(|i| format!("{}", first + by * f64::from(i)))
                .collect(),
        )
    };
    let cells = times * lats * lons;
    let values = (0..cells)
        .map(|i| format!("{}", 250 + (i * 37) % 61))
        .collect();
    format!(
        "netcdf grid {{\ndimensions: time = UNLIMITED ; lat = {lats} ; lon = {lons} ;\n\
         variables:\n double time(time) ; time:units = \"days since 2000-01-01 00:00:00\" ; time:calendar = \"standard\" ; time:axis = \"T\" ;\n\
         double lat(lat) ; lat:units = \"degrees_north\" ; lat:standard_name = \"latitude\" ;\n\
         double lon(lon) ; lon:units = \"degrees_east\" ; lon:standard_name = \"longitude\" ;\n\
         float tas(time, lat, lon) ; tas:units = \"K\" ; tas:_FillValue = -1.f ;\n\
         data:\n time = {} ;\n lat = {} ;\n lon = {} ;\n tas = {} ;\n}}\n",
        axis(times, 15.0, 30.0),
        axis(lats, -45.0, 10.0),
        axis(lons, 0.0, 22.5),
        list(values)
    )
}

#[test]
fn netcdf_cdo_and_nco_hand_grids_on() {
    need(&["ncgen", "nccopy", "ncdump", "cdo", "ncks", "ncra", "ncap2"]);
    let make = r#"
        ncgen -k classic -o grid.nc grid.cdl; ncgen -k nc4 -o grid4.nc grid.cdl; ncgen -k cdf5 -o grid5.nc grid.cdl
        ncgen -k 64-bit-offset -o grid6.nc grid.cdl"#;
    let copy = r#"
        nccopy -k nc4 -d 5 -s -c time/1,lat/5,lon/8 grid.nc packed.nc; nccopy -k classic packed.nc flat.nc
        nccopy -w -k nc4 grid5.nc inmemory.nc; nccopy -k nc7 -u grid4.nc fixed.nc
        ncdump -h packed.nc > packed.txt; ncdump -v tas -p 6,9 flat.nc > flat.txt; cmp grid.nc flat.nc > cmp.txt || true
        ncdump -s -h packed.nc | grep -i chunk > chunks.txt"#;
    let cdo = r#"
        c="cdo -s --no_history"
        $c -f nc timmean grid.nc mean.nc; $c -f nc4 -z zip_3 monmean -addc,1 grid.nc month.nc
        $c -f nc remapbil,r8x6 grid.nc remapped.nc; $c -f nc sellonlatbox,0,90,-20,20 -seltimestep,1/6 grid.nc box.nc
        $c splitmon grid.nc mon; $c -f nc mergetime mon*.nc merged.nc; $c infon merged.nc > info.txt
        $c -f srv copy grid.nc grid.srv; $c -f nc cat grid.nc all.nc; $c -f nc cat grid.nc all.nc
        $c -f grb copy grid.nc grid.grb 2> $OUTSIDE/grib; $c outputtab,date,lat,lon,value grid.grb | head -n 40 > table.txt
        $c -P 2 -f nc zonmean grid.nc zonal.nc; $c diffn grid.nc merged.nc > diff.txt 2>&1 || true"#;
    let nco = r#"
        ncks -h -O -v tas -d lat,2,6 grid.nc sub.nc; ncks -h -A -v lon grid.nc sub.nc; ncks -O -h -4 -L 2 sub.nc sub4.nc
        ncra -h -O grid.nc mean-nco.nc; ncap2 -h -O -s 'tc=tas-273.15f' grid.nc celsius.nc
        ncrename -h -v tc,temperature celsius.nc; ncatted -h -a units,temperature,m,c,degC celsius.nc
        ncrcat -h -O grid.nc grid.nc twice.nc; ncdiff -h -O grid.nc grid.nc zero.nc; ncpdq -h -O -a lon,lat grid.nc turned.nc
        ncwa -h -O -a lat,lon grid.nc series.nc; ncks --cdl -C -v tas series.nc > series.txt; ncflint -h -O -w 0.5,0.5 grid.nc grid.nc half.nc
        ncecat -h -O grid.nc flat.nc ensemble.nc"#;
    let grids = ["grid.nc", "grid4.nc", "grid5.nc", "grid6.nc"];
    Workflow::new("climate")
        .input("grid.cdl", cdl())
        .step(Step::sh("make", script(make)).reads(&["grid.cdl"]).rule(
            &grids,
            "on_termination",
            "update",
        ))
        .step(Step::sh("copy", script(copy)).reads(&grids).rule(
            &["flat.nc", "packed.nc"],
            "on_termination",
            "update",
        ))
        .step(Step::sh("cdo", script(cdo)).reads(&grids).writes(&["*"]))
        .step(Step::sh("nco", script(nco)).reads(&["grid.nc", "flat.nc"]))
        .verify();
}

#[test]
fn hdf5_tools_look_into_and_rewrite_files_of_another_step() {
    need(&["h5dump", "h5repack", "h5diff", "h5import", "ncgen"]);
    let tools = r#"
        h5dump -H grid.h5 > header; h5dump -d /tas -s 0,0,0 -c 2,3,4 grid.h5 > part; h5dump -b LE -d /lat -o lat.bin grid.h5 > said
        h5repack -f /tas:GZIP=6 -f /tas:SHUF -l /tas:CHUNK=1x5x8 grid.h5 zip.h5; h5repack -L grid.h5 latest.h5; h5dump latest.h5 > latest; rm latest.h5
        h5repack -S PAGE -G 4096 grid.h5 paged.h5
        h5diff grid.h5 zip.h5 > diff; h5ls -r zip.h5 > listed; h5stat -f zip.h5 > stat || true
        h5copy -i grid.h5 -o some.h5 -s /lat -d /copied; h5copy -i grid.h5 -o some.h5 -s /lon -d /other/lon -p
        seq 1 24 > numbers; h5import numbers -dims 4,6 -path /numbers -type TEXTIN -size 32 -o imported.h5
        h5jam -u numbers -i zip.h5 -o jammed.h5; h5unjam -i jammed.h5 -u numbers.back -o unjammed.h5; head -n 24 numbers.back | cmp - numbers
        h5dump -d /numbers imported.h5 > imported.txt; rm imported.h5; gzip -n -k zip.h5; h5clear -s jammed.h5 2> $OUTSIDE/clear || true
        h5repart -m 64k grid.h5 'piece%02d.h5'; h5dump -f family -d /lon 'piece%02d.h5' > pieces; test -s pieces"#;
    Workflow::new("hdf5")
        .input("grid.cdl", cdl())
        .step(
            Step::sh("make", script("ncgen -k nc4 -o grid.h5 grid.cdl"))
                .reads(&["grid.cdl"])
                .rule(&["grid.h5"], "on_termination", "update"),
        )
        .step(Step::sh("tools", script(tools)).reads(&["grid.h5"]))
        .verify();
}

#[test]
fn gdal_warps_and_cuts_maps_and_writes_a_database_of_shapes() {
    need(&["gdal_translate", "gdalwarp", "ogr2ogr", "gdaladdo"]);
    let dem = r#"
        awk 'BEGIN { print "ncols 120\nnrows 100\nxllcorner 10\nyllcorner 45\ncellsize 0.01\nNODATA_value -9999";
            for (r = 0; r < 100; r++) { for (c = 0; c < 120; c++) printf("%d ", 300 + (r * c * 7) % 401); print "" } }' > dem.asc"#;
    let raster = r#"
        export GDAL_CACHEMAX=1
        gdal_translate -q -a_srs EPSG:4326 dem.asc dem.tif; gdal_translate -q -co TILED=YES -co COMPRESS=DEFLATE -co BLOCKXSIZE=16 -co BLOCKYSIZE=16 dem.tif tiled.tif
        gdaladdo -q -r average tiled.tif 2 4; gdalinfo -stats -nofl tiled.tif > info.txt
        gdalwarp -q -t_srs EPSG:3857 -r bilinear -wm 1 dem.tif warped.tif; gdalwarp -q -te 10.2 45.2 10.6 45.6 dem.tif cut.tif
        gdaldem hillshade -q -s 111120 dem.tif shade.tif; gdal_translate -q -of PNG -ot Byte -scale shade.tif shade.png
        gdalbuildvrt -q mosaic.vrt cut.tif dem.tif; gdal_translate -q -of ENVI mosaic.vrt mosaic.img
        gdal_translate -q -of COG tiled.tif cog.tif; gdal_translate -q -of HFA dem.tif dem.hfa; gdal_translate -q -of GTiff -co COMPRESS=LZW -co BIGTIFF=YES warped.tif big.tif
        gdal_contour -q -a height -i 100 cut.tif contour.geojson -f GeoJSON
        gdallocationinfo -valonly -geoloc cog.tif 10.5 45.5 > value.txt; gdalinfo -checksum -nofl warped.tif | grep Checksum > sum.txt"#;
    let shapes = r#"
        export OGR_CURRENT_DATE=2000-01-01T00:00:00.000Z
        ogr2ogr -f GPKG shapes.gpkg contour.geojson -nln lines; ogr2ogr -f GPKG -update -append shapes.gpkg contour.geojson -nln more -where 'height > 400'
        ogr2ogr -f 'ESRI Shapefile' -lco DBF_DATE_LAST_UPDATE=2000-01-01 shp contour.geojson; ogrinfo -q -sql 'CREATE SPATIAL INDEX ON contour' shp
        ogr2ogr -f CSV lines.csv shp/contour.shp; ogr2ogr -f SQLite -dsco METADATA=NO lines.sqlite contour.geojson
        ogrinfo -ro -so -al shapes.gpkg > shapes.txt; ogr2ogr -f FlatGeobuf lines.fgb contour.geojson
        gdal_rasterize -q -l lines -a height -ts 60 50 -ot Int16 shapes.gpkg lines.tif; test -s lines.tif"#;
    Workflow::new("maps")
        .step(Step::sh("dem", script(dem)).rule(&["dem.asc"], "on_close", "no_update"))
        .step(Step::sh("raster", script(raster)).reads(&["dem.asc"]).rule(
            &["contour.geojson"],
            "on_termination",
            "update",
        ))
        .step(Step::sh("shapes", script(shapes)).reads(&["contour.geojson"]))
        .verify();
}
