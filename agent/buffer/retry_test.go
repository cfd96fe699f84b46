package buffer

import (
	"bytes"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A faultyReader returns only x. Some of its pages fail a number of times.
type faultyReader struct {
	bad   map[int64]int // by number
	reads int
}

const always = 1 << 30

func (f *faultyReader) ReadAt(b []byte, off int64) (int, error) {
	f.reads++
	for page := off / 4096; page <= (off+int64(len(b))-1)/4096; page++ {
		if f.bad[page] > 0 {
			f.bad[page]--
			return 0, syscall.EIO
		}
	}
	return copy(b, bytes.Repeat([]byte("x"), len(b))), nil
}

// readNames returns the result of reading each page: x, 0 for zeros, or an error.
func readNames(r *retryReader, off int64, pages int) string {
	b := make([]byte, 4096*pages)
	if err := readAt(r, b, off); err != nil {
		return "error"
	}
	names := ""
	for ; len(b) > 0; b = b[4096:] {
		if b[0] == 0 {
			names += "0"
		} else {
			names += string(b[:1])
		}
	}
	return names
}

func TestRetryReader(t *testing.T) {
	errs := func(n int) []string { return strings.Split(strings.Repeat("error ", n), " ")[:n] }
	tests := []struct {
		name string
		bad  map[int64]int
		run  func(r *retryReader, f *faultyReader) []string
		want []string
	}{
		{
			name: "bad pages are zeros after some tries",
			bad:  map[int64]int{1: always},
			run: func(r *retryReader, f *faultyReader) (got []string) {
				for range readTries + 1 {
					got = append(got, readNames(r, 0, 3))
				}
				return got
			},
			want: append(errs(readTries), "x0x"),
		},
		{
			name: "the tries of one place are not those of the next",
			bad:  map[int64]int{0: readTries, 1: readTries, 2: readTries},
			run: func(r *retryReader, f *faultyReader) (got []string) {
				for place := range int64(3) {
					for range readTries + 1 {
						got = append(got, readNames(r, place*4096, 1))
					}
				}
				return got
			},
			want: append(append(append(append(append(errs(readTries), "x"), errs(readTries)...), "x"), errs(readTries)...), "x"),
		},
		{
			name: "a read before the bad page, of what can be read, is not progress",
			bad:  map[int64]int{2: always},
			run: func(r *retryReader, f *faultyReader) (got []string) {
				for range readTries + 1 {
					got = append(got, readNames(r, 0, 1), readNames(r, 0, 3))
				}
				return got
			},
			want: []string{"x", "error", "x", "error", "x", "error", "x", "error", "x", "error", "x", "xx0"},
		},
		{
			name: "a page among bad ones that fails now and then is not lost",
			bad:  map[int64]int{5: always},
			run: func(r *retryReader, f *faultyReader) (got []string) {
				for range readTries {
					got = append(got, readNames(r, 0, 6))
				}
				f.bad[2] = 1 + readTries - 1 // with the others, and all tries alone but one
				return append(got, readNames(r, 0, 6))
			},
			want: append(errs(readTries), "xxxxx0"),
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := &faultyReader{bad: tt.bad}
			got := tt.run(&retryReader{r: f}, f)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// A disk on which every read fails is not tried five times for each page.
func TestRetryReaderDoesNotLingerOnABadDisk(t *testing.T) {
	f := &faultyReader{bad: map[int64]int{}}
	for page := range int64(100) {
		f.bad[page] = always
	}
	r := &retryReader{r: f, tries: readTries}
	if got := readNames(r, 0, 100); got != strings.Repeat("0", 100) {
		t.Errorf("read %s", got)
	}
	if want := 1 + readTries + 99; f.reads != want {
		t.Errorf("%d reads, want %d", f.reads, want)
	}
}
