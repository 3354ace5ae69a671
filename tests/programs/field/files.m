% Files as Octave keeps data: its own formats, MATLAB's, HDF5, text and binary.
save_header_format_string ("# made here");
numbers = dlmread ("table.csv", ",", 1, 1);
printf ("%d %d\n", size (numbers)); printf ("%g\n", sum (numbers(:)));
matrix = reshape (1:6000, 60, 100) / 7; name = "a name"; part = struct ("x", {1, 2, 3});
save ("-text", "all.txt", "matrix", "name", "part");
save ("-binary", "all.bin", "matrix", "name");
save ("-hdf5", "all.h5", "matrix");
save ("-v6", "all6.mat", "matrix", "name"); save ("-v7", "all7.mat", "matrix");
save ("-append", "-text", "all.txt", "numbers");
for file = {"all.txt", "all.bin", "all.h5", "all6.mat", "all7.mat"}
  read = load (file{1}); printf ("%s %s %d\n", file{1}, strjoin (fieldnames (read)', "+"), isequal (read.matrix, matrix) || max (abs (read.matrix(:) - matrix(:))) < 1e-9);
end
csvwrite ("matrix.csv", matrix(1:5, 1:5)); printf ("%d\n", rows (csvread ("matrix.csv")));
f = fopen ("raw.bin", "w+"); fwrite (f, 1:1000, "int32"); fseek (f, 400, SEEK_SET); disp (fread (f, 3, "int32")');
fseek (f, 0, SEEK_CUR); fwrite (f, [7 7], "double"); frewind (f); disp (numel (fread (f, Inf, "int32"))); fseek (f, 0, SEEK_END); disp (ftell (f)); fclose (f);
f = fopen ("text.txt", "wt"); fprintf (f, "%d %s\n", 12, "abc"); fputs (f, "last\n"); fclose (f);
f = fopen ("text.txt"); while (ischar (line = fgetl (f))) disp (line); end; fclose (f);
mkdir ("tree"); copyfile ("text.txt", "tree/copy.txt"); movefile ("tree/copy.txt", "tree/moved.txt"); disp (strjoin (sort (readdir ("tree")(3:end))', " "));
[f, temporary] = mkstemp (fullfile (tempdir (), "fXXXXXX"), true); fputs (f, "x"); fclose (f); disp (strncmp (temporary, pwd (), length (pwd ())));
[info, err] = stat ("raw.bin"); disp (info.size); delete ("tree/moved.txt"); disp (exist ("tree/moved.txt", "file")); rmdir ("tree");
gzip ("text.txt", "packed"); disp (numel (glob ("packed/*.gz"))); delete ("packed/text.txt.gz"); rmdir ("packed");
[status, said] = system ("wc -l < table.csv"); printf ("%s", said);
