package lines

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
)

// FuzzWriter pushes records to a stream that accepts only a part of each write, while the
// queue drops the oldest now and then: each byte of script is one step. The stream must
// hold whole lines, in order, none twice, and every record that was not dropped.
func FuzzWriter(f *testing.F) {
	f.Add("", []byte{})
	f.Add("one", []byte{0x00, 0x01, 0x42, 0x83, 0x04, 0x05})
	f.Add("\xff\x00 long enough to be cut", []byte{0x30, 0x81, 0x07, 0x0f, 0x82, 0x3f})
	f.Add("x", []byte{0x3f, 0x3f, 0xc1, 0x01, 0xff, 0x00, 0x80})
	f.Fuzz(func(t *testing.T, text string, script []byte) {
		if len(script) > 200 {
			t.Skip("longer scripts show nothing new")
		}
		text = strings.ReplaceAll(text, "\n", "_") // no record holds a newline
		var stream bytes.Buffer
		full := errors.New("full")
		room := 0
		write := func(b []byte) (int, error) {
			n := min(len(b), room)
			stream.Write(b[:n])
			if n < len(b) {
				return n, full
			}
			return n, nil
		}
		w := NewWriter()
		var queue [][]byte
		made, dropped := 0, map[string]bool{}
		push := func(n int) {
			n = min(n, len(queue))
			if n == 0 {
				return
			}
			switch err := w.Push(t.Context(), queue[:n], write); err {
			case nil:
				queue = queue[n:]
			case full:
			default:
				t.Fatal(err)
			}
		}
		for _, step := range script {
			for len(queue) < 4 {
				queue = append(queue, fmt.Appendf(nil, "%d %s", made, text))
				made++
			}
			size := int(step & 0x3f)
			switch step >> 6 {
			case 0, 1: // the stream accepts that many bytes
				room = size
				push(1 + size%4)
			case 2: // the queue drops its oldest record
				for _, r := range queue[:1+size%3] {
					dropped[string(r)] = true
				}
				queue = queue[1+size%3:]
			case 3: // the stream accepts all of them
				room = 1 << 30
				push(1 + size%4)
			}
		}
		room = 1 << 30
		push(len(queue))
		if err := w.Push(t.Context(), nil, write); err != nil { // the rest of a line, if nothing was queued
			t.Fatal(err)
		}

		lines := bytes.SplitAfter(stream.Bytes(), []byte("\n"))
		if last := lines[len(lines)-1]; len(last) > 0 {
			t.Fatalf("the stream ends in half a line: %q", last)
		}
		next := 0
		for _, line := range lines[:len(lines)-1] {
			for want := ""; want != string(line); next++ {
				if next == made {
					t.Fatalf("%q is torn, twice or out of order in\n%q", line, stream.Bytes())
				}
				record := fmt.Sprintf("%d %s", next, text)
				want = record + "\n"
				if want != string(line) && !dropped[record] {
					t.Fatalf("%q is missing before %q in\n%q", record, line, stream.Bytes())
				}
			}
		}
		for ; next < made; next++ {
			if record := fmt.Sprintf("%d %s", next, text); !dropped[record] {
				t.Fatalf("%q is missing at the end of\n%q", record, stream.Bytes())
			}
		}
	})
}

// FuzzCut cuts lines into pieces: each is whole lines, within the limit unless it is one
// line, and together they are the lines.
func FuzzCut(f *testing.F) {
	f.Add("a\nb\n", 3)
	f.Add("a long line\n\n", 0)
	f.Add("", -1)
	f.Fuzz(func(t *testing.T, text string, limit int) {
		rest := []byte(text + "\n")
		for len(rest) > 0 {
			n := Cut(rest, limit)
			if n < 1 || n > len(rest) || rest[n-1] != '\n' {
				t.Fatalf("Cut(%q, %d) = %d", rest, limit, n)
			}
			if n > limit && bytes.Count(rest[:n], []byte("\n")) != 1 {
				t.Fatalf("Cut(%q, %d) = %d, more than one line", rest, limit, n)
			}
			rest = rest[n:]
		}
	})
}
