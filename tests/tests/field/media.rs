//! Pictures, films and plots.

use crate::{need, script};
use capio_tests::{Step, Workflow};

#[test]
fn ffmpeg_encodes_a_film_that_another_step_still_renders() {
    need(&["ffmpeg", "ffprobe"]);
    let quiet = "ffmpeg -nostdin -v error -y -threads 1 -fflags +bitexact";
    let render = format!(
        "{quiet} -f lavfi -i testsrc=size=160x120:rate=10:duration=3 -pix_fmt yuv420p -f yuv4mpegpipe film.y4m
         {quiet} -f lavfi -i sine=frequency=440:duration=3 -bitexact sound.wav"
    );
    let exact = "-flags +bitexact -threads 1 -bitexact";
    let encode = format!(
        "{quiet} -i film.y4m -c:v mpeg4 {exact} film.avi
         {quiet} -i film.avi -i sound.wav -c:v libx264 -preset ultrafast -c:a aac {exact} -movflags +faststart film.mp4
         {quiet} -i film.mp4 -c copy {exact} film.mkv
         {quiet} -i film.mp4 -c copy -f mpegts {exact} film.ts
         mkdir -p hls frames
         {quiet} -i film.mp4 -c copy {exact} -f hls -hls_time 1 -hls_playlist_type vod hls/film.m3u8
         {quiet} -i film.mkv -vf fps=4 {exact} frames/%03d.png
         {quiet} -i frames/%03d.png -c:v ffv1 {exact} again.mkv
         {quiet} -i hls/film.m3u8 -f framemd5 -an {exact} sums
         {quiet} -i film.mp4 -vf palettegen {exact} -update 1 palette.png
         {quiet} -i film.mp4 -i palette.png -lavfi paletteuse {exact} film.gif
         ffprobe -v error -show_entries format=nb_streams,duration,size -of csv film.mp4 film.mp4 > probed 2> /dev/null ||
         ffprobe -v error -show_entries format=nb_streams,duration,size -of csv film.mp4 > probed; test -s probed"
    );
    Workflow::new("film")
        .step(Step::sh("render", script(&render)).rule(
            &["film.y4m", "sound.wav"],
            "on_termination",
            "no_update",
        ))
        .step(Step::sh("encode", script(&encode)).reads(&["film.y4m", "sound.wav"]))
        .verify();
}

/// With so little memory that its pixels lie in a mapped file in `TMPDIR`.
#[test]
fn imagemagick_keeps_pixels_in_a_mapped_file_and_gnuplot_draws() {
    need(&["convert-im6.q16", "montage-im6.q16", "gnuplot"]);
    let data = "awk 'BEGIN { for (i = 0; i < 2000; i++) print i, (i * 7919) % 1009, sin(i / 50) }' > data.txt";
    let plot = r#"
        gnuplot -e "set terminal svg size 400,300; set output 'plot.svg'; plot 'data.txt' using 1:2 with dots"
        gnuplot -e "set terminal dumb 80 20; set output 'plot.txt'; plot 'data.txt' using 1:3 with lines"
        gnuplot -e "set table 'smooth.txt'; plot 'data.txt' using 1:2 smooth bezier"
        gnuplot -e "stats 'data.txt' using 2 nooutput; set print 'stats.txt'; print STATS_mean, STATS_records"
        printf 'f(x) = a * x + b\nset fit quiet logfile "fit.log"\nfit f(x) "data.txt" using 1:3 via a, b\nset print "fitted"\nprint a, b\nsave variables "saved.gp"\n' > fit.gp
        gnuplot fit.gp; rm fit.log saved.gp; test -s fitted"#;
    let pictures = r#"
        c="convert-im6.q16 -seed 1"; s="-define png:exclude-chunks=date,time +set date:create +set date:modify"
        $c -size 400x300 plasma:red-blue $s plasma.png; $c plasma.png -resize 50% $s half.png
        $c -limit memory 1MiB -limit map 64MiB plasma.png -blur 0x2 -rotate 30 $s mapped.png
        $c -limit memory 1MiB -limit map 0 -limit disk 1GiB plasma.png -implode 0.3 $s disk.png
        cmp half.png mapped.png > differ || true
        $c plasma.png half.png -strip pages.tif; $c pages.tif $s page-%d.png; $c plasma.png mpc:cached.mpc; $c mpc:cached.mpc -negate $s negative.png
        rm -f cached.*
        $c plasma.png -strip plasma.jpg; $c plasma.jpg -strip plasma.gif; $c -delay 10 plasma.png negative.png -strip -loop 0 moving.gif
        montage-im6.q16 plasma.png half.png -tile 2x1 -geometry 100x100 $s both.png; identify-im6.q16 -format '%f %wx%h %m\n' *.png *.tif > identified
        compare-im6.q16 -metric AE plasma.png negative.png null: 2> compared || true; mogrify-im6.q16 -resize 20% -strip plasma.jpg; test -s compared"#;
    Workflow::new("pictures")
        .step(Step::sh("data", script(data)).rule(&["data.txt"], "on_close", "no_update"))
        .step(
            Step::sh("plot", script(plot))
                .reads(&["data.txt"])
                .writes(&["plot.*", "smooth.txt", "stats.txt", "fitted"]),
        )
        .step(Step::sh("pictures", script(pictures)))
        .verify();
}
