package respond

import (
	"slices"
	"sync"
)

// unread bounds the memory of responses that clients have not read yet. Beyond most bytes,
// the client that has been reading longest is disconnected. Clients that read the same
// body count once.
type unread struct {
	most    int
	mu      sync.Mutex
	bytes   int
	readers map[*byte]int // number of readers of each body, by its first byte
	reads   []*read       // oldest first
}

// A read is one client reading one body.
type read struct {
	body       []byte
	disconnect func()
}

func newUnread(most int) *unread { return &unread{most: most, readers: map[*byte]int{}} }

// begin records that a client is reading a body, which must not be empty, until end is
// called. disconnect may be called until then, and must not block.
func (u *unread) begin(body []byte, disconnect func()) (end func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	r := &read{body, disconnect}
	u.reads = append(u.reads, r)
	if u.readers[&body[0]]++; u.readers[&body[0]] == 1 {
		u.bytes += len(body)
	}
	for u.bytes > u.most && u.reads[0] != r {
		oldest := u.reads[0]
		u.remove(oldest)
		oldest.disconnect()
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
		return // it was disconnected
	}
	u.reads = slices.Delete(u.reads, i, i+1)
	first := &r.body[0]
	if u.readers[first]--; u.readers[first] == 0 {
		delete(u.readers, first)
		u.bytes -= len(r.body)
	}
}
