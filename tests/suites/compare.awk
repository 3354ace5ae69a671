# Compares what a suite printed in a plain directory with what it printed under capio.
#
#   awk -v suite=NAME -f compare.awk EXPECTED.md plain/out capio/out
#
# Prints the counts, then a line for each case that differs unexpectedly; exit status 1
# if there is one.
function trim(text) {
    gsub(/^[ `]+|[ `]+$/, "", text)
    return text
}

# The pattern of a row of the table that names this case; empty if there is none.
function row_of(name,    pattern) {
    for (pattern in expected)
        if (name ~ pattern) return pattern
    return ""
}

# Notes a case in `table`: its verdict and what stands behind the colon.
function note(table,    line, at) {
    line = $0
    sub(/^(not )?ok /, "", line)
    at = index(line, ": ")
    if (at) {
        said[table, substr(line, 1, at - 1)] = substr(line, at + 2)
        line = substr(line, 1, at - 1)
    }
    verdict[table, line] = /^ok / ? "ok" : "not ok"
    if (!(line in order)) {
        order[line] = ++cases
        name_of[cases] = line
    }
}

FNR == 1 { file++ }

file == 1 {
    # | suite | case | reason |, a star for any text
    if (split($0, cell, "|") < 4 || trim(cell[2]) != suite) next
    pattern = trim(cell[3])
    gsub(/[.+?$(){}\[\]]/, "[&]", pattern)
    gsub(/\*/, ".*", pattern)
    expected["^" pattern "$"] = 1
    next
}

/^(not )?ok / { note(file == 2 ? "plain" : "ours") }

END {
    for (i = 1; i <= cases; i++) {
        name = name_of[i]
        if (verdict["plain", name] != "ok") {
            nowhere = nowhere " " name
            skipped++
            if (verdict["plain", name] == "" && verdict["ours", name] != "ok")
                trouble[++troubles] = name ": only there under capio: " said["ours", name]
            continue
        }
        plain++
        ours = verdict["ours", name]
        why = ""
        if (ours == "") why = "did not come to it"
        else if (ours != "ok") why = said["ours", name]
        else if (said["ours", name] != said["plain", name]) why = "'" said["ours", name] "', plainly '" said["plain", name] "'"
        row = row_of(name)
        if (why == "" && row == "") passed++
        else if (why == "") trouble[++troubles] = name ": passes, but EXPECTED.md says it does not"
        else if (row != "") differences++
        else trouble[++troubles] = name ": " why
    }
    printf "%d passed plainly, %d under capio, %d expected differences", plain, passed, differences
    if (skipped) printf ", %d pass nowhere:%s", skipped, nowhere
    if (!plain) trouble[++troubles] = "no case passes in a plain directory"
    for (i = 1; i <= troubles; i++) printf "\n    %s", trouble[i]
    exit troubles > 0
}
