# Files as Perl programs use them: layers, sysopen, locks, in-place edits, dbm, archives.
use strict;
use warnings;
use Fcntl qw(:DEFAULT :flock :seek :mode);
use File::Temp qw(tempfile tempdir);
use File::Find;
use File::Copy qw(copy move cp);
use File::Path qw(make_path remove_tree);
use IO::File;
use IO::Compress::Gzip qw(gzip $GzipError);
use IO::Uncompress::Gunzip qw(gunzip);
use SDBM_File;
use Storable qw(nstore retrieve lock_nstore);
use Digest::SHA;
use POSIX ();
use Tie::File;
use Cwd ();

# What another step is still writing, as it comes.
my ($lines, $sum) = (0, 0);
open my $in, '<', 'numbers' or die "numbers: $!";
while (<$in>) { chomp; $lines++; $sum += $_ }
close $in;
print "$lines lines, $sum\n";

sysopen my $raw, 'raw.bin', O_RDWR | O_CREAT | O_EXCL, 0640 or die $!;
syswrite $raw, 'x' x 10000;
sysseek $raw, 5000, SEEK_SET;
syswrite $raw, 'middle';
sysseek $raw, -3, SEEK_END;
sysread $raw, my $tail, 10;
flock $raw, LOCK_EX | LOCK_NB or die $!;
truncate $raw, 7000;
print length($tail), ' ', -s $raw, ' ', sprintf('%o', S_IMODE((stat 'raw.bin')[2])), "\n";
close $raw;
print sysopen(my $again, 'raw.bin', O_CREAT | O_EXCL | O_WRONLY) ? 'made' : "refused: $!", "\n";

open my $text, '+>:encoding(UTF-8)', 'text' or die $!;
print $text "gr\x{fc}n $_\n" for 1 .. 500;
seek $text, 0, SEEK_SET;
my @all = <$text>;
print scalar(@all), ' ', tell($text), "\n";
close $text;
{ local ($^I, @ARGV) = ('.bak', 'text'); while (<>) { s/n 1/N 1/; print } }
tie my @rows, 'Tie::File', 'text' or die $!;
$rows[3] = 'replaced by something much longer than it was before';
splice @rows, 10, 5;
untie @rows;

tie my %db, 'SDBM_File', 'names', O_RDWR | O_CREAT, 0644 or die $!;
$db{"key $_"} = $_ * $_ for 1 .. 300;
delete $db{'key 7'};
my $total = 0;
while (my ($key, $value) = each %db) { $total += $value }
print "dbm $total\n";
untie %db;
$Storable::canonical = 1;
nstore { a => [1 .. 50], b => { c => 'd' } }, 'stored';
lock_nstore [1, 2, 3], 'stored2';
print scalar @{ retrieve('stored')->{a} }, "\n";

gzip 'text' => 'text.gz', -Time => 0, -Minimal => 1 or die $GzipError;
gunzip 'text.gz' => 'text.back';
print Digest::SHA->new(256)->addfile('text.back')->hexdigest, "\n";
make_path 'tree/a/b', 'tree/c';
cp 'text', 'tree/a/b/copy';
move 'text.back', 'tree/c/moved';
my @found;
find { wanted => sub { push @found, $File::Find::name }, no_chdir => 0 }, 'tree';
print join(' ', sort @found), "\n";
my ($handle, $name) = tempfile(UNLINK => 1);
print $handle 'temporary';
close $handle;
print -s $name, ' ', index($name, Cwd::getcwd()) == 0 ? 'inside' : 'outside', "\n";
opendir my $dir, 'tree' or die $!;
my @names = sort grep { !/^\./ } readdir $dir;
rewinddir $dir;
print "@names ", scalar(() = readdir $dir), "\n";
remove_tree 'tree/a';
utime 1_000_000_000, 1_000_000_000, 'tree/c/moved';
print +(stat 'tree/c/moved')[9], ' ', (-d 'tree/a' ? 'there' : 'gone'), "\n";
my $pid = open my $pipe, '-|' // die $!;
if (!$pid) { open STDIN, '<', 'text' or die $!; exec 'wc', '-l' }
print 'child says ', <$pipe>;
close $pipe;
open my $saved, '>&', \*STDOUT;
open STDOUT, '>', 'redirected' or die $!;
$| = 1;
print "first\n";
system 'echo second';
open STDOUT, '>&', $saved;
print -s 'redirected', "\n";
pipe my $from, my $to;
open my $bulk, '>>', 'log' or die $!;
for my $worker (1 .. 4) {
    next if fork;
    for (1 .. 50) { syswrite $bulk, sprintf "%d %03d\n", $worker, $_ }
    POSIX::_exit(0);
}
1 while wait > 0;
open my $sorted, '>', 'log.sorted';
open my $log, '<', 'log';
print $sorted sort <$log>;
unlink 'log';
