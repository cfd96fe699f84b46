package prometheus

import (
	"slices"
	"sync"
)

// unread bounds the memory of answers that clients have yet to read: beyond most
// bytes the client that has been reading longest is cut off. Clients that read the
// same bytes count once.
type unread struct {
	most    int
	mu      sync.Mutex
	bytes   int
	readers map[*byte]int // of each body, by its first byte
	reads   []*read       // the oldest first
}

// A read is one client reading one body.
type read struct {
	body []byte
	cut  func()
}

func newUnread(most int) *unread { return &unread{most: most, readers: map[*byte]int{}} }

// begin notes that a client reads a body, which is not empty, until end is called. cut
// may be called until then, and must not block.
func (u *unread) begin(body []byte, cut func()) (end func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	r := &read{body, cut}
	u.reads = append(u.reads, r)
	if u.readers[&body[0]]++; u.readers[&body[0]] == 1 {
		u.bytes += len(body)
	}
	for u.bytes > u.most && u.reads[0] != r {
		oldest := u.reads[0]
		u.remove(oldest)
		oldest.cut()
	}
	return func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		u.remove(r)
	}
}

func (u *unread) remove(r *read) {
	i := slices.Index(u.reads, r)
	if i < 0 {
		return // it was cut off
	}
	u.reads = slices.Delete(u.reads, i, i+1)
	first := &r.body[0]
	if u.readers[first]--; u.readers[first] == 0 {
		delete(u.readers, first)
		u.bytes -= len(r.body)
	}
}
