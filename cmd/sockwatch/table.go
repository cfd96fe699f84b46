package main

import (
	"bufio"
	"fmt"
	"strconv"
	"strings"
	"unicode"

	"golang.org/x/term"
	"golang.org/x/text/width"
)

// A column is one column of a printed table.
type column struct {
	title  string
	cells  []string
	right  bool // aligned to the right
	shrink bool // may be cut to fit the terminal
}

// narrowest is the smallest width to which a column is cut: its title still fits.
const narrowest = 7

// writeTable writes the lines of a table.
func writeTable(w *bufio.Writer, columns []column, limit int) {
	for _, line := range tableLines(columns, limit) {
		fmt.Fprintln(w, line)
	}
}

// tableLines formats columns as lines of at most limit terminal cells; 0 means no limit.
// The first line holds the titles.
func tableLines(columns []column, limit int) []string {
	widths := make([]int, len(columns))
	total := 2 * (len(columns) - 1)
	for i := range columns {
		c := &columns[i]
		widths[i] = len(c.title)
		for j, cell := range c.cells {
			c.cells[j] = printable(cell)
			widths[i] = max(widths[i], cells(c.cells[j]))
		}
		total += widths[i]
	}
	for limit > 0 && total > limit {
		widest := -1
		for i, c := range columns {
			if c.shrink && widths[i] > narrowest && (widest < 0 || widths[i] > widths[widest]) {
				widest = i
			}
		}
		if widest < 0 {
			break
		}
		widths[widest]--
		total--
	}
	var lines []string
	for row := -1; row < len(columns[0].cells); row++ {
		var line strings.Builder
		for i, c := range columns {
			cell := c.title
			if row >= 0 {
				cell = c.cells[row]
			}
			cell = cut(cell, widths[i])
			pad := strings.Repeat(" ", widths[i]-cells(cell))
			if i > 0 {
				line.WriteString("  ")
			}
			if c.right {
				line.WriteString(pad + cell)
			} else {
				line.WriteString(cell + pad)
			}
		}
		s := strings.TrimRight(line.String(), " ")
		if limit > 0 {
			s = cut(s, limit)
		}
		lines = append(lines, s)
	}
	return lines
}

// cut shortens s to at most n terminal cells.
func cut(s string, n int) string {
	if cells(s) <= n {
		return s
	}
	used := 0
	for i, r := range s {
		if used += runeCells(r); used > n-1 {
			return s[:i] + "…"
		}
	}
	return s
}

// folded breaks a sentence into lines of at most limit cells; 0 means no limit.
func folded(s string, limit int) string {
	var b strings.Builder
	used := 0
	for i, word := range strings.Fields(s) {
		n := cells(word)
		switch {
		case i == 0:
		case limit > 0 && used+1+n > limit:
			b.WriteByte('\n')
			used = 0
		default:
			b.WriteByte(' ')
			used++
		}
		b.WriteString(word)
		used += n
	}
	b.WriteByte('\n')
	return b.String()
}

// printable escapes everything that could move the cursor: processes choose their names.
func printable(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }) {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == unicode.ReplacementChar && !strings.HasPrefix(s[i:], string(r)):
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case !unicode.IsPrint(r):
			for _, c := range []byte(string(r)) {
				fmt.Fprintf(&b, `\x%02x`, c)
			}
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// cells returns how many terminal cells s takes.
func cells(s string) int {
	n := 0
	for _, r := range s {
		n += runeCells(r)
	}
	return n
}

func runeCells(r rune) int {
	if unicode.In(r, unicode.Mn, unicode.Me) {
		return 0
	}
	switch width.LookupRune(r).Kind() {
	case width.EastAsianWide, width.EastAsianFullwidth:
		return 2
	default:
		return 1
	}
}

// width returns the width of the terminal on stdout, or 0 if stdout is not a terminal.
func (p *program) width() int {
	fd, ok := p.stdout.terminal()
	if !ok {
		return 0
	}
	width, _ := p.terminalSize(fd)
	return width
}

// terminalSize returns the columns and lines of a terminal, from $COLUMNS and $LINES or
// else the terminal itself; 0 if unknown.
func (p *program) terminalSize(fd int) (columns, lines int) {
	columns, lines, err := term.GetSize(fd)
	if err != nil {
		columns, lines = 0, 0
	}
	for name, size := range map[string]*int{"COLUMNS": &columns, "LINES": &lines} {
		set, _ := p.getenv(name)
		if n, err := strconv.Atoi(set); err == nil && n > 0 {
			*size = n
		}
	}
	return columns, lines
}
