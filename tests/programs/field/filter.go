// Reads numbers from standard input, writes their squares and sum to standard output.
// With arguments: copies the first file to the second.
package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
)

func main() {
	if len(os.Args) == 3 {
		in, err := os.Open(os.Args[1])
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		out, err := os.Create(os.Args[2])
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		if _, err := io.Copy(out, in); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	lines := bufio.NewScanner(os.Stdin)
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	sum := 0
	for lines.Scan() {
		var number int
		fmt.Sscan(lines.Text(), &number)
		sum += number * number
		fmt.Fprintln(out, number*number)
	}
	fmt.Fprintln(out, "sum", sum)
}
