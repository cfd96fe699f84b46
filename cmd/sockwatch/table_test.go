package main

import (
	"bufio"
	"strings"
	"testing"
	"unicode"
)

// FuzzTable checks that a table of any names has one line each, of printable characters,
// within the terminal.
func FuzzTable(f *testing.F) {
	f.Add("a\nb", "\x1b[31m", 40)
	f.Add("日本語日本語", "e\u0301\u0301\ufffd\xff", 20)
	f.Fuzz(func(t *testing.T, a, b string, limit int) {
		var text strings.Builder
		w := bufio.NewWriter(&text)
		writeTable(w, []column{{title: "A", cells: []string{a, b}, shrink: true}, {title: "B", cells: []string{b, a}, right: true}}, limit)
		w.Flush()
		lines := strings.Split(text.String(), "\n")
		if len(lines) != 4 || lines[3] != "" {
			t.Fatalf("%d lines: %q", len(lines), text.String())
		}
		for _, line := range lines {
			if limit > 0 && cells(line) > limit {
				t.Errorf("%q takes %d cells of %d", line, cells(line), limit)
			}
			for _, r := range line {
				if !unicode.IsPrint(r) {
					t.Errorf("%q holds %q", line, r)
				}
			}
		}
	})
}

func TestFolded(t *testing.T) {
	for _, test := range []struct {
		limit int
		want  string
	}{
		{0, "one two three\n"}, {13, "one two three\n"}, {12, "one two\nthree\n"}, {3, "one\ntwo\nthree\n"}, {1, "one\ntwo\nthree\n"},
	} {
		if got := folded("one two  three", test.limit); got != test.want {
			t.Errorf("in %d cells: %q, want %q", test.limit, got, test.want)
		}
	}
}
