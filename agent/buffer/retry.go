package buffer

import "io"

// readTries is how often a read may fail before the data counts as damaged.
const readTries = 5

// A retryReader returns the errors of the first readTries failed reads of a place. After
// that it fills unreadable pages with zeros instead, until a read succeeds beyond it.
type retryReader struct {
	r     io.ReaderAt
	tries int
	end   int64 // the furthest end of the failed reads
}

func (r *retryReader) ReadAt(b []byte, off int64) (int, error) {
	end := off + int64(len(b))
	n, err := r.r.ReadAt(b, off)
	if err == nil || err == io.EOF {
		if end >= r.end {
			r.tries, r.end = 0, 0
		}
		return n, err
	}
	r.end = max(r.end, end)
	if r.tries < readTries {
		r.tries++
		return n, err
	}
	readPages(r.r, b, off)
	return len(b), nil
}

// readPages fills b page by page, with zeros for unreadable pages. It tries each page
// several times, but only once if the one before it failed: a bad disk is slow.
func readPages(r io.ReaderAt, b []byte, off int64) {
	const page = 4096
	tries := readTries
	for len(b) > 0 {
		n := min(len(b), page-int(off%page))
		err := readAt(r, b[:n], off)
		for i := 1; i < tries && err != nil; i++ {
			err = readAt(r, b[:n], off)
		}
		tries = readTries
		if err != nil {
			clear(b[:n])
			tries = 1
		}
		b, off = b[n:], off+int64(n)
	}
}
