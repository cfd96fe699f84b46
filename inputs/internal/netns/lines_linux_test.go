package netns

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestLines reads whole lines, however they are split into pieces, and only up to a limit.
func TestLines(t *testing.T) {
	for name, test := range map[string]struct {
		text string
		most int64
		want []string
		err  string
	}{
		"lines":    {text: "a\n\nbcdefghijklmnop\nq\n", want: []string{"a", "", "bcdefghijklmnop", "q"}},
		"empty":    {},
		"no end":   {text: "a\nb", want: []string{"a"}, err: "the last line is incomplete"},
		"long":     {text: strings.Repeat("a", 20<<10) + "\n", err: "line of more than 16384 bytes"},
		"bounded":  {text: "a\nb\nc\n", most: 3, err: "file is too large"},
		"in bound": {text: "a\n", most: 2, want: []string{"a"}},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "table")
			if err := os.WriteFile(path, []byte(test.text), 0o644); err != nil {
				t.Fatal(err)
			}
			file, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer file.Close()
			var got []string
			err = lineReader{file: file, piece: 4096, most: test.most}.read(t.Context(), func(line []byte) (bool, error) {
				got = append(got, string(line))
				return true, nil
			})
			want := test.err
			if want != "" {
				want = "read " + path + ": " + want
			}
			if text(err) != want {
				t.Errorf("error %q, expected %q", text(err), want)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestLinesObeyContext stops between two pieces.
func TestLinesObeyContext(t *testing.T) {
	file, err := os.Open("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	ctx, cancel := context.WithCancel(t.Context())
	err = lineReader{file: file, piece: 16}.read(ctx, func([]byte) (bool, error) {
		cancel()
		return true, nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
