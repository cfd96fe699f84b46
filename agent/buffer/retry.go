package buffer

import "io"

// readTries is how often a read that fails is tried before what cannot be read
// counts as damaged.
const readTries = 5

// A retryReader returns the error of a read that fails. After readTries of them
// without a read that got as far, it fills the pages that cannot be read with zeros,
// until one gets further.
type retryReader struct {
	r     io.ReaderAt
	tries int
	end   int64 // of the reads that failed
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

// readPages fills b page by page, with zeros for those that cannot be read. Each is
// tried several times, unless the one before it failed: a bad disk is slow.
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
