#!/bin/bash
# pjdfstest: the errno and effect of every call on names, attributes and sizes.
set -u

# The second one is to be another file system.
other=$(mktemp -d /dev/shm/capio-suites.XXXXXX)
trap 'rmdir "$other"' EXIT
cat >"$SCRATCH/pjdfstest.toml" <<END
[features]
posix_fallocate = {}
rename_ctime = {}
utime_now = {}
utimensat = {}
secondary_fs = "$other"
[settings]
naptime = 0.02
allow_remount = false
[dummy_auth]
entries = [["nobody", "nogroup"], ["daemon", "daemon"]]
END

# All but link::link_count_max, which makes 65,000 links.
cases="chmod chown truncate symlink link::c link::e link::r link::s link::u mkdir mkfifo
mknod open posix_fallocate rename rmdir utimensat"
[ -z "$LONG" ] || cases=

# shellcheck disable=SC2086 # one word per pattern
"$TOOLS/pjdfstest" -c "$SCRATCH/pjdfstest.toml" $cases 2>&1 | awk '
    function tell() {
        if (name != "") print "not ok " name ": " why
        name = why = ""
        fflush()
    }
    { gsub(/\033\[[0-9;]*m|\t/, "") }
    $2 == "ok" { tell(); print "ok " $1 }
    $2 == "FAILED" { tell(); name = $1; next }
    $2 == "skipped" || /^Backtrace/ { tell() }
    name != "" && NF { why = why (why == "" ? "" : ", ") $0 }
    / total$/ { whole = 1 }
    END { tell(); print whole ? "ok summary" : "not ok summary: it ended early" }
'
true # what failed is told
